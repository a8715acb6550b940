package caddytest

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// A Process is a Caddy of its own.
type Process struct {
	*exec.Cmd
	// Output is all that it wrote so far.
	Output *Output
	exited chan struct{}
	err    error
}

// Output collects what a process writes.
type Output struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Build builds a package of this module, named by its path from the module's
// root such as ./cmd/caddy, and returns the binary. It is built once for all
// tests of a process.
func Build(t testing.TB, pkg string) string {
	t.Helper()
	builds.Lock()
	defer builds.Unlock()
	if path, ok := builds.done[pkg]; ok {
		return path
	}
	path := filepath.Join(tempDir(t), "bin", filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", path, pkg)
	cmd.Dir = Root(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %s\n%s", pkg, err, out)
	}
	if builds.done == nil {
		builds.done = make(map[string]string)
	}
	builds.done[pkg] = path
	return path
}

var builds struct {
	sync.Mutex
	done map[string]string
}

// Root returns the module's root directory.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("this is not within a Go module")
		}
		dir = filepath.Dir(dir)
	}
}

// Run starts cmd/caddy on a Caddyfile and kills it when the test ends, if it
// still runs then.
func Run(t testing.TB, caddyfile string) *Process {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(path, []byte(caddyfile), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &Process{
		Cmd:    exec.Command(Build(t, "./cmd/caddy"), "run", "--config", path, "--adapter", "caddyfile"),
		Output: new(Output),
		exited: make(chan struct{}),
	}
	p.Dir = Root(t)
	p.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, "HOME="+dir)
	p.Stdout, p.Stderr = p.Output, p.Output
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.Cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill() // it may have ended
		<-p.exited
		if t.Failed() {
			t.Logf("Caddy wrote:\n%s", p.Output)
		}
	})
	return p
}

// Wait returns when the process has ended, with what exec.Cmd.Wait returned,
// or an error when it has not ended in time.
func (p *Process) Wait(within time.Duration) error {
	select {
	case <-p.exited:
		return p.err
	case <-time.After(within):
		return errors.New("the process is still running")
	}
}

// Running reports whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// WaitServing returns when a GET of the address is answered, whatever the
// status, and fails the test when the process ends or half a minute passes
// before that.
func (p *Process) WaitServing(t testing.TB, url string) {
	t.Helper()
	client := &http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	deadline := time.After(30 * time.Second)
	for {
		resp, err := client.Get(url)
		if err == nil {
			resp.Body.Close()
			return
		}
		select {
		case <-retry.C:
		case <-p.exited:
			t.Fatalf("Caddy ended: %v", p.err)
		case <-deadline:
			t.Fatalf("%s is not answered: %s", url, err)
		}
	}
}
