//go:build !windows

package redistest

import "syscall"

// Suspend makes the process silent: its sockets take what they are sent, and nobody
// answers.
func (s *Server) Suspend() { s.t.Helper(); s.signal(syscall.SIGSTOP, "suspend") }

// Resume lets a suspended process go on.
func (s *Server) Resume() { s.t.Helper(); s.signal(syscall.SIGCONT, "resume") }
