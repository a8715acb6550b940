package sse

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A poller tells the writers which of their sockets can be written to again, and
// whose peers have hung up. One epoll serves a hub. It is itself polled by the
// runtime, so that waiting takes a goroutine and no thread.
type poller struct {
	epoll int
	file  *os.File // of epoll

	mu    sync.Mutex // guards what follows
	slots []pollSlot
	free  []uint32 // slots without a stream
}

// A pollSlot is what an event is about. The generation tells a stream from those
// that had the slot before it: what the kernel reported may be old by the time it
// is read.
type pollSlot struct {
	stream     *directStream
	generation uint32
}

// polled is what is asked for. A socket is reported when it becomes writable, not
// as long as it is.
const polled = unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET

// hungUp is what says that nobody reads any more. One that only has ended its
// own side counts too, as it does for net/http: an EventSource never does that.
const hungUp = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR

func newPoller() (*poller, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	// What is non-blocking is polled by the runtime.
	if err := unix.SetNonblock(epoll, true); err != nil {
		_ = unix.Close(epoll)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &poller{epoll: epoll, file: os.NewFile(uintptr(epoll), "epoll")}, nil
}

// run tells of events until the poller is closed.
func (p *poller) run() {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return // it is closed
	}
	events := make([]unix.EpollEvent, 256)
	for {
		n := 0
		err := conn.Read(func(fd uintptr) (done bool) {
			n, err = unix.EpollWait(int(fd), events, 0)
			return n != 0 || err != nil
		})
		if err != nil {
			return
		}
		for i := range events[:max(n, 0)] {
			p.tell(&events[i])
		}
	}
}

func (p *poller) tell(e *unix.EpollEvent) {
	p.mu.Lock()
	slot := p.slots[e.Fd]
	p.mu.Unlock()
	if slot.stream == nil || slot.generation != uint32(e.Pad) {
		return
	}
	result := writable
	if e.Events&hungUp != 0 {
		result = hangUp
	}
	slot.stream.writer.polled(slot.stream, result)
}

// reserve gives a stream a slot, until remove.
func (p *poller) reserve(st *directStream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) == 0 {
		p.free = append(p.free, uint32(len(p.slots)))
		p.slots = append(p.slots, pollSlot{})
	}
	st.slot = p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	p.slots[st.slot].stream = st
}

// watch begins to watch the socket of a stream that has a slot.
func (p *poller) watch(st *directStream) error {
	p.mu.Lock()
	event := unix.EpollEvent{Events: polled, Fd: int32(st.slot), Pad: int32(p.slots[st.slot].generation)}
	p.mu.Unlock()
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, int(st.socket.fd), &event))
}

// remove ends what reserve and watch began. The socket must still be open.
func (p *poller) remove(st *directStream) {
	// It fails only for what is not watched.
	_ = unix.EpollCtl(p.epoll, unix.EPOLL_CTL_DEL, int(st.socket.fd), nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slots[st.slot].stream = nil
	p.slots[st.slot].generation++
	p.free = append(p.free, st.slot)
}

// close makes run return.
func (p *poller) close() { _ = p.file.Close() }
