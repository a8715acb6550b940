package redistest

// Suspend skips the test: no process can be made to wait here.
func (s *Server) Suspend() { s.t.Helper(); s.t.Skip("a process cannot be suspended on Windows") }

// Resume is never called.
func (s *Server) Resume() {}
