export GOPROXY=off GOTOOLCHAIN=local GOFLAGS=-mod=mod
cat >go.mod <<'END'
module example.test/zoo

go 1.19
END
cat >zoo.go <<'END'
package zoo

func Sum(parts ...int) int {
	results := make(chan int)
	for _, part := range parts {
		go func(part int) { results <- part }(part)
	}
	sum := 0
	for range parts {
		sum += <-results
	}
	return sum
}
END
cat >zoo_test.go <<'END'
package zoo

import "testing"

func TestSum(t *testing.T) {
	if got := Sum(1, 2, 3, 4); got != 10 {
		t.Fatal(got)
	}
}
END
go test ./...
