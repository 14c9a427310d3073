mkdir -p src/main/java/zoo src/test/java/zoo
cat >pom.xml <<'END'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>zoo</groupId>
  <artifactId>zoo</artifactId>
  <version>1.0</version>
  <properties>
    <maven.compiler.source>17</maven.compiler.source>
    <maven.compiler.target>17</maven.compiler.target>
    <project.build.sourceEncoding>UTF-8</project.build.sourceEncoding>
  </properties>
  <dependencies>
    <dependency>
      <groupId>junit</groupId><artifactId>junit</artifactId><version>4.x</version><scope>test</scope>
    </dependency>
  </dependencies>
</project>
END
cat >src/main/java/zoo/Zoo.java <<'END'
package zoo;
public class Zoo { public static int twice(int number) { return 2 * number; } }
END
cat >src/test/java/zoo/ZooTest.java <<'END'
package zoo;
import org.junit.Test;
import static org.junit.Assert.assertEquals;
public class ZooTest { @Test public void doubles() { assertEquals(42, Zoo.twice(21)); } }
END
# Debian's packages are the repository of artifacts. Tests run in Maven's own process: another one of Debian's surefire
# waits for ten seconds when it is done.
MAVEN_OPTS=-XX:TieredStopAtLevel=1 mvn --offline --batch-mode --no-transfer-progress -s /etc/maven/settings-debian.xml \
    -Dmaven.repo.local=/usr/share/maven-repo -DforkCount=0 package
ls target/zoo-1.0.jar
