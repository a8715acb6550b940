//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// A stream reads the answer to a subscription from pieces as they come off
// the socket: head, chunks if it has them, frames. It copies only what a piece
// ends in the middle of.
type stream struct {
	state   streamState
	chunk   int    // bytes left of the chunk, or its size as far as it was read
	partial []byte // start of the head or of a frame

	subscription
	began, answered time.Duration // by the clock of this process
	// What a browser would remember, and the number in it.
	last   []byte
	seq    uint64
	resume string // what the hub said of the id that was presented
	broken error  // what the hub said that must not happen here
}

type streamState int

const (
	inHead streamState = iota
	inBody
	inChunkSize
	inChunk
	behindChunk
)

var (
	endOfHead  = []byte("\r\n\r\n")
	endOfFrame = []byte("\n\n")
)

var errEnded = errors.New("the server ended a stream")

var (
	lineID     = []byte("id: ")
	ownEvent   = []byte("event: hub:")
	resumeName = []byte(`"resume":"`)
)

// note takes from a frame what a stream remembers. It reports false if the frame
// is an event that does not come behind those before it.
func (s *stream) note(frame []byte) (inOrder bool) {
	isEvent := true // and no frame of the hub's own
	for line := range bytes.Lines(frame) {
		switch {
		case bytes.HasPrefix(line, lineID):
			s.last = append(s.last[:0], bytes.TrimSpace(line[len(lineID):])...)
		case bytes.HasPrefix(line, ownEvent):
			isEvent = false
			if !bytes.HasPrefix(line, []byte("event: hub:open")) {
				s.broken = fmt.Errorf("the hub said %q", frame)
			}
			_, rest, _ := bytes.Cut(frame, resumeName)
			word, _, _ := bytes.Cut(rest, []byte(`"`))
			s.resume = string(word)
		case line[0] == ':':
			isEvent = false
		}
		if bytes.HasPrefix(line, []byte("data: ")) {
			break // the last of the fields
		}
	}
	seq, ok := seqOf(s.last)
	if !ok {
		return true // of the servers that are compared, not all have such ids
	}
	before := s.seq
	s.seq = seq
	return !isEvent || s.seq > before
}

// seqOf returns the number of an event's id: what is behind the dot, if it has
// one. It reports false if that is no number.
func seqOf(id []byte) (seq uint64, ok bool) {
	id = id[bytes.LastIndexByte(id, '.')+1:]
	for _, c := range id {
		if c < '0' || c > '9' {
			return 0, false
		}
		seq = seq*10 + uint64(c-'0')
	}
	return seq, len(id) > 0
}

// feed takes the next piece, and calls frame with each frame that it completes.
// The bytes are valid during the call.
func (s *stream) feed(b []byte, frame func([]byte)) error {
	for len(b) > 0 {
		var err error
		switch s.state {
		case inHead:
			b, err = s.head(b)
		case inBody:
			s.body(b, frame)
			return nil
		case inChunkSize:
			b, err = s.chunkSize(b)
		case inChunk:
			n := min(len(b), s.chunk)
			s.body(b[:n], frame)
			b = b[n:]
			if s.chunk -= n; s.chunk == 0 {
				s.state = behindChunk
			}
		case behindChunk: // CRLF
			if b[0] == '\n' {
				s.state = inChunkSize
			}
			b = b[1:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) head(b []byte) (rest []byte, err error) {
	s.partial = append(s.partial, b...)
	head, rest, ok := bytes.Cut(s.partial, endOfHead)
	if !ok {
		return nil, nil
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
		return nil, fmt.Errorf("a subscription was answered %q", s.partial)
	}
	s.state = inBody
	if bytes.Contains(bytes.ToLower(head), []byte("\r\ntransfer-encoding: chunked")) {
		s.state = inChunkSize
	}
	s.partial = nil
	return rest, nil
}

func (s *stream) chunkSize(b []byte) (rest []byte, err error) {
	for i, c := range b {
		switch {
		case c >= '0' && c <= '9':
			s.chunk = s.chunk<<4 | int(c-'0')
		case c >= 'a' && c <= 'f':
			s.chunk = s.chunk<<4 | int(c-'a'+10)
		case c >= 'A' && c <= 'F':
			s.chunk = s.chunk<<4 | int(c-'A'+10)
		case c == '\r':
		case c == '\n' && s.chunk == 0:
			return nil, errEnded
		case c == '\n':
			s.state = inChunk
			return b[i+1:], nil
		default:
			return nil, fmt.Errorf("a chunk has the size %q", b[:i+1])
		}
	}
	return nil, nil
}

func (s *stream) body(b []byte, frame func([]byte)) {
	if len(s.partial) > 0 {
		s.partial = append(s.partial, b...)
		b = s.partial
	}
	for {
		i := bytes.Index(b, endOfFrame)
		if i < 0 {
			break
		}
		frame(b[:i])
		b = b[i+len(endOfFrame):]
	}
	s.partial = append(s.partial[:0], b...)
}
