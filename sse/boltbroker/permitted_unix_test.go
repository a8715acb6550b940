//go:build unix

package boltbroker

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Where the file cannot be created, read or written to, the error says where
// and why.
func TestNotPermitted(t *testing.T) {
	if os.Getuid() == 0 {
		runAsNobody(t) // to root everything is permitted
		return
	}
	t.Run("the directory", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "d")
		if err := os.Mkdir(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{filepath.Join(dir, "record.db"), filepath.Join(dir, "e", "record.db")} {
			_, err := Open(path, Options{})
			wantError(t, err, path, "permission denied")
		}
	})
	for _, mode := range []os.FileMode{0o000, 0o400} {
		t.Run(mode.String(), func(t *testing.T) {
			b := open(t, file(t), Options{})
			if err := errors.Join(b.Close(), os.Chmod(b.path, mode)); err != nil {
				t.Fatal(err)
			}
			_, err := Open(b.path, Options{})
			wantError(t, err, b.path, "permission denied")
			if err != nil && strings.Contains(err.Error(), "damaged") {
				t.Error(err)
			}
		})
	}
}

// runAsNobody runs the test in a process of its own that has no privileges.
func runAsNobody(t *testing.T) {
	const nobody = 65534
	dir, err := os.MkdirTemp("", "nobody-") // those of the test are closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "test")
	if err := errors.Join(os.WriteFile(binary, program, 0o500), os.Chown(binary, nobody, nobody), os.Chown(dir, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir = dir
	cmd.Env = []string{"TMPDIR=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}
