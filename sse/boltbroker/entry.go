package boltbroker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A stored value ends with a checksum of itself and its key, so that a bit that
// flips in either is found.

const checksumBytes = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// entryVersion begins every stored entry.
const entryVersion = 1

var errChecksum = errors.New("its checksum is wrong")

// seal appends the checksum of a key and the value that begins at start.
func seal(b []byte, start int, key []byte) []byte {
	return binary.BigEndian.AppendUint32(b, checksum(key, b[start:]))
}

// unseal returns the value without its checksum.
func unseal(key, value []byte) ([]byte, error) {
	end := len(value) - checksumBytes
	if end < 0 || checksum(key, value[:end]) != binary.BigEndian.Uint32(value[end:]) {
		return nil, errChecksum
	}
	return value[:end], nil
}

func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// keyOf returns the key of a seq. Keys sort as seqs do.
func keyOf(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

func seqOf(key []byte) (uint64, error) {
	if len(key) != 8 {
		return 0, fmt.Errorf("a key has %d bytes instead of 8", len(key))
	}
	return binary.BigEndian.Uint64(key), nil
}

// appendEntry appends what is stored of an entry under its key.
func appendEntry(b []byte, key []byte, e *sse.Entry) []byte {
	start := len(b)
	b = append(b, entryVersion, byte(e.Event.End))
	b = binary.BigEndian.AppendUint64(b, uint64(e.Time.UnixNano()))
	b = binary.AppendUvarint(b, uint64(e.Event.Retry.Milliseconds()))
	b = binary.AppendUvarint(b, uint64(len(e.Event.Channels)))
	for _, name := range e.Event.Channels {
		b = appendString(b, name)
	}
	b = appendString(b, e.Event.Name)
	b = appendString(b, e.Event.Data)
	return seal(b, start, key)
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// A rawEntry is an entry as it stands in the file. Its bytes are valid only while
// the transaction is open that they were read by.
type rawEntry struct {
	seq   uint64
	end   sse.Ending
	time  int64 // Unix, in nanoseconds
	retry time.Duration
	// channels holds their number of strings, each with its length.
	channels int
	names    []byte
	name     []byte
	data     []byte
}

// parseEntry reads a stored entry, of which it copies nothing.
func parseEntry(key, value []byte) (s rawEntry, err error) {
	if s.seq, err = seqOf(key); err != nil {
		return s, err
	}
	if value, err = unseal(key, value); err != nil {
		return s, fmt.Errorf("entry %d: %w", s.seq, err)
	}
	r := reader{rest: value}
	if version := r.byte(); version != entryVersion {
		return s, fmt.Errorf("entry %d has the version %d, which this program does not know", s.seq, version)
	}
	s.end = sse.Ending(r.byte())
	s.time = int64(r.uint64())
	retry := r.uvarint()
	s.retry = time.Duration(retry) * time.Millisecond
	channels := r.uvarint()
	s.names = r.rest
	for range min(channels, sse.MaxEventChannels+1) {
		r.bytes()
	}
	s.names = s.names[:len(s.names)-len(r.rest)]
	s.channels = int(min(channels, sse.MaxEventChannels+1))
	s.name = r.bytes()
	s.data = r.bytes()
	known := s.end <= sse.EndOnly && retry <= uint64(sse.MaxRetry.Milliseconds()) && channels <= sse.MaxEventChannels
	if r.bad || len(r.rest) > 0 || !known {
		return s, fmt.Errorf("entry %d cannot be read", s.seq)
	}
	return s, nil
}

// eachChannel calls do with the names of the channels until it returns false.
func (s *rawEntry) eachChannel(do func(name []byte) bool) {
	r := reader{rest: s.names}
	for range s.channels {
		if !do(r.bytes()) {
			return
		}
	}
}

// entry returns a copy that outlives the transaction.
func (s *rawEntry) entry(epoch string) sse.Entry {
	e := sse.Entry{Position: sse.Position{Epoch: epoch, Seq: s.seq}, Time: time.Unix(0, s.time)}
	e.Event = sse.Event{Name: string(s.name), Data: string(s.data), Retry: s.retry, End: s.end}
	e.Event.Channels = make([]string, 0, s.channels)
	s.eachChannel(func(name []byte) bool {
		e.Event.Channels = append(e.Event.Channels, string(name))
		return true
	})
	return e
}

// decodeEntry reads a stored entry, of which it keeps nothing.
func decodeEntry(epoch string, key, value []byte) (sse.Entry, error) {
	s, err := parseEntry(key, value)
	if err != nil {
		return sse.Entry{}, err
	}
	return s.entry(epoch), nil
}

// appendRepeat appends what is stored of a publisher's id.
func appendRepeat(b []byte, key []byte, id sse.IDKey, at time.Time) []byte {
	start := len(b)
	b = append(b, id[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(at.UnixNano()))
	return seal(b, start, key)
}

func decodeRepeat(key, value []byte) (sse.Repeat, error) {
	seq, err := seqOf(key)
	if err != nil {
		return sse.Repeat{}, err
	}
	value, err = unseal(key, value)
	if err == nil && len(value) != len(sse.IDKey{})+8 {
		err = errChecksum
	}
	if err != nil {
		return sse.Repeat{}, fmt.Errorf("id of entry %d: %w", seq, err)
	}
	r := sse.Repeat{Seq: seq, Key: sse.IDKey(value[:16])}
	r.Time = time.Unix(0, int64(binary.BigEndian.Uint64(value[16:])))
	return r, nil
}

// A reader takes fields off the front of bytes. It is bad once they end early.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.rest)) {
		r.bad = true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	n, size := binary.Uvarint(r.rest)
	r.take(uint64(max(size, 0)))
	r.bad = r.bad || size <= 0
	return n
}

func (r *reader) bytes() []byte { return r.take(r.uvarint()) }
