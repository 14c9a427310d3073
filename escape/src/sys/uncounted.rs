//! Memory that is in no process's own count.

use std::fs;
use std::io;

const CHUNK: usize = 8 << 20;

/// A mapping of this length, where the kernel likes.
unsafe fn map(length: usize, protection: i32, flags: i32) -> io::Result<*mut u8> {
    // SAFETY: a new mapping replaces nothing.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(memory.cast())
}

/// Fills shared memory and lets go of each part at once: it stays, and is resident in nobody. Makes sure of that after
/// `hold`.
pub fn fill_and_let_go(length: usize, hold: impl FnOnce()) -> io::Result<()> {
    // SAFETY: every access is inside of the new mapping, which lives until the process ends.
    unsafe {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let memory = map(length, libc::PROT_READ | libc::PROT_WRITE, flags)?;
        let parts = || (0..length / CHUNK).map(|part| memory.add(part * CHUNK));
        for part in parts() {
            part.write_bytes(7, CHUNK);
            libc::madvise(part.cast(), CHUNK, libc::MADV_DONTNEED);
        }
        hold();
        for part in parts() {
            if part.read_volatile() != 7 {
                return Err(io::Error::other("what was put there is gone"));
            }
            libc::madvise(part.cast(), CHUNK, libc::MADV_DONTNEED);
        }
    }
    Ok(())
}

/// Fills pages of 2 MiB that are set aside for who asks for them.
pub fn fill_large_pages(length: usize, hold: impl FnOnce()) -> io::Result<()> {
    // SAFETY: every access is inside of the new mapping, which lives until the process ends.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
        let memory = map(length, libc::PROT_READ | libc::PROT_WRITE, flags)?;
        memory.write_bytes(7, length);
        hold();
        std::hint::black_box(memory.read_volatile());
    }
    Ok(())
}

/// Makes the kernel keep so many bytes of page tables, by reading here and there in memory that nobody ever wrote.
pub fn fill_page_tables(length: usize) -> io::Result<()> {
    /// What one page of the tables stands for.
    const SPAN: usize = 2 << 20;
    let taken = || -> io::Result<usize> {
        let status = fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmPTE:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
        // gVisor has no such line, and other tables.
        kib.map(|kib| kib << 10)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODATA))
    };
    taken()?;
    let spans = length / 4096;
    // SAFETY: every access is inside of the new mapping, which lives until the process ends.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let memory = map(spans * SPAN, libc::PROT_READ, flags)?;
        libc::madvise(memory.cast(), spans * SPAN, libc::MADV_NOHUGEPAGE);
        for span in 0..spans {
            memory.add(span * SPAN).read_volatile();
        }
    }
    if taken()? < length / 2 {
        return Err(io::Error::other("the kernel keeps no page tables for that"));
    }
    Ok(())
}

/// Goes on in a second thread and ends the first: to who looks at the process it is dead. For a child that has nothing
/// else to do; its exit code is the error.
pub fn behind_a_dead_leader(run: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().spawn(move || {
        // Only once the first thread is gone.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let code = run().err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO));
        // SAFETY: ends the process without what its parent has registered.
        unsafe { libc::_exit(code) }
    })?;
    // exit(2) ends this thread alone.
    super::call(libc::SYS_exit, [0; 6]).map(drop)
}
