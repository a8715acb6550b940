package caddytest

import (
	"os"
	"sync"
	"testing"
)

// Main is a testing.M that removes, when the tests are through, what they had
// in common: the binaries that [Build] built, and Caddy's data.
type Main struct{ M *testing.M }

// Run runs the tests and returns what the process is to exit with.
func (m Main) Run() int {
	defer func() {
		shared.Lock()
		defer shared.Unlock()
		if shared.dir != "" {
			_ = os.RemoveAll(shared.dir) // it is a temporary directory
		}
	}()
	return m.M.Run()
}

var shared struct {
	sync.Mutex
	dir string
}

// tempDir returns a directory for all tests of this process.
func tempDir(t testing.TB) string {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.dir == "" {
		dir, err := os.MkdirTemp("", "caddytest-")
		if err != nil {
			t.Fatal(err)
		}
		shared.dir = dir
	}
	return shared.dir
}
