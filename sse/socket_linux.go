package sse

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// lowWater is how much may wait in the kernel for a peer that does not
	// read, in bytes. Without a bound it would take some megabytes.
	lowWater = 64 << 10
	// deadAfter is how long a peer may acknowledge nothing, or read nothing
	// of what waits for it, before it is given up.
	deadAfter = time.Minute
	// tlsPiece is how much of a TLS stream is written where the socket is known
	// to have room: whenever the kernel takes something, it takes that much.
	tlsPiece = 8 << 10
	// tlsCost is what a write takes of that besides its bytes: each may be a
	// packet of its own, and the kernel counts what it needs for one.
	tlsCost = 1400
)

// A socket is the connection of a stream whose handler has returned.
type socket struct {
	// tls is the connection over fd, and its owner. Nil is plain.
	tls *tls.Conn
	fd  int32 // what is written to and polled, owned if it is plain
	// room is what of a tlsPiece is left since the socket was last found to
	// have room.
	room int32
}

// What a socket under TLS must promise for a tlsPiece to fit whenever there is room.
// The kernel tells of room when a third of the buffer is free, and takes for each
// segment some memory besides what is in it. How large segments may be follows from
// the largest window that the peer has ever offered.
const (
	leastBuffer  = 6 * tlsPiece
	leastWindow  = 2 * tlsPiece
	leastSegment = 500
)

var errNoSocket = errors.New("sse: the connection is not one of the kernel's with at most TLS on top")

// takeSocket returns the socket of a connection that is about to be hijacked. One
// that a listener has wrapped has none: the wrapper may do something with the
// bytes.
//
// A plain socket is a file of its own, so that the connection, with all that the
// net package keeps for it, can be closed once it is hijacked.
func takeSocket(conn net.Conn) (s socket, err error) {
	var failed error
	if over, ok := conn.(*tls.Conn); ok {
		s.tls = over
		err = control(over.NetConn(), func(fd int) {
			s.fd = int32(fd)
			failed = fitsPieces(fd)
		})
		return s, errors.Join(err, failed)
	}
	err = control(conn, func(fd int) {
		var own int
		own, failed = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		s.fd = int32(own)
	})
	return s, errors.Join(err, failed)
}

// errTight is returned for a socket under TLS whose client could have a writer wait.
var errTight = errors.New("sse: the client's window, its segments or the socket's buffer are too small")

// fitsPieces returns an error if a tlsPiece might not fit into a TCP socket that has
// room.
func fitsPieces(fd int) error {
	buffer, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP): // a Unix socket has no segments
		info = &unix.TCPInfo{Snd_mss: leastSegment, Snd_wnd: leastWindow}
	case err != nil:
		return os.NewSyscallError("getsockopt", err)
	}
	if buffer < leastBuffer || info.Snd_mss < leastSegment || info.Snd_wnd < leastWindow {
		return errTight
	}
	return nil
}

// control calls do with the file of a connection.
func control(conn net.Conn, do func(fd int)) error {
	var file syscall.Conn
	switch conn := conn.(type) {
	case *net.TCPConn:
		file = conn
	case *net.UnixConn:
		file = conn
	default:
		return errNoSocket
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { do(int(fd)) })
}

// giveBack undoes takeSocket, while the connection is its server's.
func (s *socket) giveBack() {
	if s.tls == nil {
		_ = unix.Close(int(s.fd))
	}
}

// tune has the kernel give up dead peers, and hold little for slow ones. Sockets
// that are not TCP have no such options, and need none.
func (s *socket) tune() {
	_ = unix.SetsockoptInt(int(s.fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter.Milliseconds()))
	_ = unix.SetsockoptInt(int(s.fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, lowWater)
}

// errFull is returned for a socket that takes nothing now.
var errFull = errors.New("sse: the socket is full")

// write writes what a plain socket takes, which may be a part, and never waits.
func (s *socket) write(p []byte) (n int, err error) {
	// What the runtime does around a system call that may block costs a tenth
	// of this one, which never does.
	written, _, errno := unix.RawSyscall6(
		unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), //nolint:gosec // it lives until the call returns
		uintptr(len(p)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno == 0 {
		return int(written), nil
	}
	if errno == unix.EAGAIN || errno == unix.EINTR || errno == unix.ENOBUFS { // of the last two the sweep tries again
		return 0, errFull
	}
	return 0, os.NewSyscallError("send", errno)
}

// writeTLS writes as long as a socket under TLS has room, since it cannot go on after
// a part of a record.
func (s *socket) writeTLS(p []byte) (n int, err error) {
	for n < len(p) {
		if s.room <= 0 {
			if !s.hasRoom() {
				return n, errFull
			}
			s.room = tlsPiece
		}
		piece := p[n:min(n+int(s.room), len(p))]
		s.room -= int32(len(piece)) + tlsCost
		written, err := s.tls.Write(piece)
		n += written
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// hasRoom reports whether a small write would not wait. On a socket that has
// failed it would not either.
func (s *socket) hasRoom() bool {
	fds := unix.PollFd{Fd: s.fd, Events: unix.POLLOUT}
	var now unix.Timespec
	n, _, _ := unix.RawSyscall6(
		unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0) //nolint:gosec // as above
	return n == 1
}

// close ends the connection. What the peer has sent and nobody has read would make
// the kernel reset it, upon which the peer may lose the last bytes that it was
// sent: so it is read now if it is plain, where a request may have been sent behind
// that of the stream.
func (s *socket) close() error {
	if s.tls != nil {
		if !s.hasRoom() {
			return s.tls.NetConn().Close()
		}
		return s.tls.Close()
	}
	var sink [4 << 10]byte
	for range 16 {
		n, _, err := unix.Recvfrom(int(s.fd), sink[:], unix.MSG_DONTWAIT)
		if err != nil || n < len(sink) {
			break
		}
	}
	return os.NewSyscallError("close", unix.Close(int(s.fd)))
}
