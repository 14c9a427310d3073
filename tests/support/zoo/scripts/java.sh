cat >Zoo.java <<'END'
import java.util.stream.IntStream;

public class Zoo {
    public static void main(String[] arguments) throws Exception {
        System.out.println("sum: " + IntStream.rangeClosed(1, 100).parallel().sum());
        Process child = new ProcessBuilder("sh", "-c", "echo child of java").inheritIO().start();
        System.exit(child.waitFor());
    }
}
END
javac Zoo.java
jar --create --file zoo.jar --main-class Zoo Zoo.class
java -jar zoo.jar
