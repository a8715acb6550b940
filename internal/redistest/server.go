package redistest

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience is how long a server may take for what it is asked.
const patience = 30 * time.Second

// A Server is a redis-server process, or a Sentinel. Its methods fail the test.
type Server struct {
	// Dir is where its socket is; Data, in it, is where it saves.
	Dir, Data string
	// Socket is the path of its Unix socket.
	Socket string
	// Port is the TCP port on the loopback interface, zero if it has none.
	Port int
	// Password of its default user, empty if there is none.
	Password string

	t     testing.TB
	args  []string
	links atomic.Int32 // that were made to it

	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
	log    *output
}

// Start starts a server that listens on a Unix socket alone and saves nothing, and
// waits until it serves. The arguments are added to its command line, on which each
// setting is an argument that begins with --.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := prepare(t, args)
	s.begin()
	return s
}

// StartTCP is Start for a server that listens on a TCP port as well. Arguments may
// contain {port} and {dir}.
func StartTCP(t testing.TB, args ...string) *Server {
	t.Helper()
	return startTCP(t, serving, args...)
}

func startTCP(t testing.TB, until string, args ...string) *Server {
	t.Helper()
	s := prepare(t, args)
	for range 50 { // a port that is free may be taken a moment later
		s.Port = firstPort + rand.IntN(lastPort-firstPort)
		if s.launch(until) {
			return s
		}
		if !strings.Contains(s.log.String(), "Address already in use") {
			break
		}
	}
	t.Fatalf("redis-server does not start:\n%s", s.log)
	return nil
}

// Where ports are looked for: below those of connections that are made. A node of a
// Cluster also listens on its port plus 10000.
const (
	firstPort = 20000
	lastPort  = 22000
)

func prepare(t testing.TB, args []string) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("these tests need redis-server; make deps installs it")
	}
	dir, err := os.MkdirTemp("", "redis-") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Dir: dir, Data: filepath.Join(dir, "data"), Socket: filepath.Join(dir, "redis.sock"), t: t, args: args}
	if err := os.Mkdir(s.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.cmd != nil {
			s.Kill()
		}
		if t.Failed() {
			t.Logf("the server in %s wrote:\n%s", dir, s.log)
		}
		_ = os.RemoveAll(dir) // it is a temporary directory
	})
	return s
}

func (s *Server) begin() {
	s.t.Helper()
	if !s.launch(serving) {
		s.t.Fatalf("redis-server does not start:\n%s", s.log)
	}
}

// serving is in what a server writes when it serves.
const serving = "eady to accept connections"

// launch starts the process, and reports whether it comes to write something.
func (s *Server) launch(until string) bool {
	s.t.Helper()
	expand := strings.NewReplacer("{port}", fmt.Sprint(s.Port), "{dir}", s.Dir)
	args := []string{"--port", fmt.Sprint(s.Port), "--bind", "127.0.0.1", "--unixsocket", s.Socket, "--dir", s.Data, "--save", "", "--daemonize", "no", "--repl-diskless-sync-delay", "0"}
	if len(s.args) > 0 && strings.HasSuffix(s.args[0], ".conf") { // it must come first
		args = append([]string{expand.Replace(s.args[0])}, args...)
		args = append(args, s.args[1:]...)
	} else {
		args = append(args, s.args...)
	}
	for i := range args {
		args[i] = expand.Replace(args[i])
	}
	s.cmd = exec.Command("redis-server", args...)
	endWithParent(s.cmd)
	s.log = &output{until: until, serves: make(chan struct{})}
	read, write := io.Pipe()
	s.cmd.Stdout, s.cmd.Stderr = write, write
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go s.log.copy(read)
	exited := make(chan struct{})
	s.exited = exited
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait() // it is killed, mostly
		write.Close()
		close(exited)
	}(s.cmd)
	select {
	case <-s.log.serves:
		return true
	case <-s.exited:
		return false
	case <-time.After(patience):
		s.Kill()
		return false
	}
}

// URL returns the address of the Unix socket, with the password if there is one.
func (s *Server) URL() string {
	if s.Password != "" {
		return "unix://:" + s.Password + "@" + s.Socket
	}
	return "unix://" + s.Socket
}

// Address returns the TCP address.
func (s *Server) Address() string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }

// Stop ends the process as an operator does, who lets it save what it is to save.
func (s *Server) Stop() { s.signal(syscall.SIGTERM, "stop"); s.wait() }

// Kill ends the process at once.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill() // it may have ended
	s.wait()
}

// Restart starts the process again, which must have ended, with its directory.
func (s *Server) Restart() { s.t.Helper(); s.begin() }

// RestartUntil is Restart, but waits only until the server has written something, with
// other arguments added.
func (s *Server) RestartUntil(written string, args ...string) {
	s.t.Helper()
	before := s.args
	s.args = append(slices.Clip(s.args), args...)
	if !s.launch(written) {
		s.t.Fatalf("redis-server does not come to write %q:\n%s", written, s.log)
	}
	s.args = before
}

func (s *Server) signal(signal syscall.Signal, what string) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		s.t.Fatalf("%s redis-server: %v", what, err)
	}
}

func (s *Server) wait() {
	select {
	case <-s.exited:
	case <-time.After(patience):
		s.t.Errorf("redis-server does not end")
	}
}
