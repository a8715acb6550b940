package caddymodule

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
)

// What is taken from a body before the lines that were read are published. The
// last of the lines may exceed it.
const (
	batchLines = 256
	batchBytes = 256 << 10
)

// A line of a body.
type line struct {
	number int    // from 1
	text   []byte // without its end
	// refused says why the line has no text.
	refused *problem
}

// A lineReader reads lines ahead of who takes them, but no more than a batch:
// then it leaves the rest to the client, who cannot send it.
type lineReader struct {
	body   *bufio.Reader
	limit  int64 // bytes of a line
	number int   // of the last line

	mu      sync.Mutex // guards what follows
	changed sync.Cond
	queue   []line
	size    int  // bytes of the queue
	stopped bool // no more is wanted
	ended   bool // run has returned, or is about to
	whole   bool // the body was read to its end
}

func newLineReader(body io.Reader, limit int64) *lineReader {
	r := &lineReader{body: bufio.NewReaderSize(body, 64<<10), limit: limit}
	r.changed.L = &r.mu
	return r
}

// run reads until the body ends or cannot be read any more.
func (r *lineReader) run() {
	var lines []line
	size := 0
	for {
		l, err := r.next()
		if err != nil && !errors.Is(err, io.EOF) {
			l = r.brokenOff(l, err)
		}
		if l.refused != nil || len(bytes.TrimSpace(l.text)) > 0 {
			lines, size = append(lines, l), size+len(l.text)
		}
		if err == nil && r.hasLine() && len(lines) < batchLines && size < batchBytes {
			continue
		}
		if !r.put(lines, size, err) || err != nil {
			return
		}
		lines, size = nil, 0
	}
}

// next reads a line. Of one that is too long it keeps nothing. If there is an
// error, the line has no end: it is what remains of the body.
func (r *lineReader) next() (line, error) {
	r.number++
	l := line{number: r.number}
	for {
		part, err := r.body.ReadSlice('\n')
		if err == nil {
			part = part[:len(part)-1]
		}
		switch {
		case l.refused != nil:
		case int64(len(l.text)+len(part)) > r.limit:
			l.text = nil
			l.refused = problemf(http.StatusRequestEntityTooLarge, "the line has more than %d bytes, which is max_body", r.limit)
		default:
			l.text = append(l.text, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return l, err
		}
	}
}

// brokenOff is what becomes of a line in which the body broke off. Even if it
// looks like a whole envelope, it may not be all that was meant.
func (r *lineReader) brokenOff(l line, err error) line {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(l.text) > 0 && !r.stopped {
		l.refused = problemf(http.StatusBadRequest, "the body broke off in this line: %s; the line was not published", err)
	}
	l.text = nil
	return l
}

// hasLine reports whether the next line can be read without waiting for it.
func (r *lineReader) hasLine() bool {
	buffered, _ := r.body.Peek(r.body.Buffered()) // never fails
	return bytes.IndexByte(buffered, '\n') >= 0
}

// put queues lines when there is room for them, and with an error that there
// will be no more. It reports false if they are not wanted.
func (r *lineReader) put(lines []line, size int, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.ended && len(r.queue) > 0 && (len(r.queue)+len(lines) > batchLines || r.size+size > batchBytes) {
		r.changed.Wait()
	}
	if r.ended {
		return false
	}
	r.queue, r.size = append(r.queue, lines...), r.size+size
	r.ended, r.whole = err != nil, errors.Is(err, io.EOF)
	r.changed.Broadcast()
	return true
}

// take waits for lines and returns all that are there; none if there will be no
// more.
func (r *lineReader) take() []line {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.queue) == 0 && !r.ended {
		r.changed.Wait()
	}
	lines := r.queue
	r.queue, r.size = nil, 0
	r.changed.Broadcast()
	return lines
}

// stop has the line that is being read go without an answer. What was read
// before can still be taken.
func (r *lineReader) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
}

// abandon makes run return as soon as it is through with reading: nobody takes
// lines any more. It reports whether the body was read to its end.
func (r *lineReader) abandon() (whole bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	r.changed.Broadcast()
	return r.whole
}
