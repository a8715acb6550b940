//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// feedWindow is how many lines of a feed may be without an answer.
	feedWindow = 2000
	// feedBatch is how many lines are written at a time.
	feedBatch = 100
	// feedEnd is how long the server may take to end its answer.
	feedEnd = 10 * time.Second
)

// A feed publishes events as lines of one request, and reads the answers
// meanwhile.
type feed struct {
	conn   net.Conn
	line   []byte // with the data of no event
	data   []byte // in it
	series uint32
	chunk  []byte        // reused
	ended  chan struct{} // closed when no answer is read any more

	mu             sync.Mutex // guards what follows
	changed        sync.Cond
	sent, answered int
	err            error // why there will be no more answers
}

// openFeed begins a request. It is unusable once ctx is done; the caller closes
// it.
func (s *server) openFeed(ctx context.Context, channel string, series uint32, size int) (*feed, error) {
	conn, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	f := &feed{conn: conn, series: series, ended: make(chan struct{})}
	f.changed.L = &f.mu
	f.line = fmt.Appendf(nil, `{"channel":%q,"data":"`, channel)
	at := len(f.line)
	f.line = append(append(f.line, bytes.Repeat([]byte{'x'}, size)...), "\"}\n"...)
	f.data = f.line[at : at+size]
	_, err = fmt.Fprintf(conn, "POST /sse/publish HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n", s.publishAt)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	go f.receive()
	return f, nil
}

// publish sends lines and returns when all are answered.
func (f *feed) publish(lines int) error {
	for lines > 0 {
		first, n, err := f.reserve(min(lines, feedBatch))
		if err != nil {
			return err
		}
		f.chunk = fmt.Appendf(f.chunk[:0], "%x\r\n", n*len(f.line))
		for i := range n {
			stamp{f.series, uint32(first + i), now()}.put(f.data)
			f.chunk = append(f.chunk, f.line...)
		}
		f.chunk = append(f.chunk, "\r\n"...)
		if _, err := f.conn.Write(f.chunk); err != nil {
			return err
		}
		lines -= n
	}
	return f.await()
}

// reserve waits until lines may be sent, and returns the number of the first
// and how many.
func (f *feed) reserve(most int) (first, n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.sent-f.answered >= feedWindow && f.err == nil {
		f.changed.Wait()
	}
	first = f.sent
	n = min(most, feedWindow-(f.sent-f.answered))
	f.sent += n
	return first, n, f.err
}

// await waits until all lines are answered.
func (f *feed) await() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.answered < f.sent && f.err == nil {
		f.changed.Wait()
	}
	return f.err
}

// receive reads the answers until there are no more.
func (f *feed) receive() {
	defer close(f.ended)
	err := f.readAnswers()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
	f.changed.Broadcast()
}

func (f *feed) readAnswers() error {
	answer, err := http.ReadResponse(bufio.NewReader(f.conn), nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New("lines were answered " + answer.Status)
	}
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		if !bytes.HasPrefix(lines.Bytes(), []byte(`{"id":"`)) {
			return fmt.Errorf("a line was answered %s", lines.Bytes())
		}
		f.mu.Lock()
		f.answered++
		f.changed.Signal()
		f.mu.Unlock()
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return errors.New("the server ended its answers")
}

// close ends the request, and waits until the server has ended its answer.
func (f *feed) close() {
	_ = f.conn.SetDeadline(time.Now().Add(feedEnd))
	_, _ = f.conn.Write([]byte("0\r\n\r\n")) // whoever is gone has ended it too
	<-f.ended
	_ = f.conn.Close()
}
