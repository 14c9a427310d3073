cat >parts.py <<'END'
import multiprocessing as mp
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory

def square(number):
    return number * number

def fill(name, lock):
    with lock:
        memory = shared_memory.SharedMemory(name=name)
        memory.buf[0] += 7
        memory.close()

if __name__ == "__main__":
    with mp.Pool(2) as pool:
        print("pool:", sum(pool.map(square, range(10))))
    with ProcessPoolExecutor(2, mp_context=mp.get_context("forkserver")) as executor:
        print("executor:", sum(executor.map(square, range(10))))
    lock = mp.Lock()
    memory = shared_memory.SharedMemory(create=True, size=16)
    workers = [mp.Process(target=fill, args=(memory.name, lock)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print("shared:", memory.buf[0])
    memory.close()
    memory.unlink()
END
python3 parts.py
