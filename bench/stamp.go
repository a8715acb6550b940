//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"time"
)

// A stamp is what the data of an event begins with: which event it is, and when
// it was published by the clock of this process.
type stamp struct {
	series, number uint32
	at             time.Duration
}

const (
	rawStampBytes = 4 + 4 + 8
	stampBytes    = 1 + 2*rawStampBytes
)

// mark begins the line of an event of ours. The data of the hub's own events
// are JSON objects.
var mark = []byte("data: @")

// epoch is when this process began, from which times are counted.
var epoch = time.Now()

func now() time.Duration { return time.Since(epoch) }

// put writes the stamp to the beginning of data.
func (s stamp) put(data []byte) {
	var raw [rawStampBytes]byte
	binary.BigEndian.PutUint32(raw[0:], s.series)
	binary.BigEndian.PutUint32(raw[4:], s.number)
	binary.BigEndian.PutUint64(raw[8:], uint64(s.at))
	data[0] = '@'
	hex.Encode(data[1:], raw[:])
}

// readStamp returns the stamp of a frame, unless it is not an event of ours.
func readStamp(frame []byte) (s stamp, ok bool) {
	at := bytes.Index(frame, mark)
	if at < 0 || (at > 0 && frame[at-1] != '\n') {
		return s, false
	}
	frame = frame[at+len(mark):]
	var raw [rawStampBytes]byte
	if len(frame) < hex.EncodedLen(len(raw)) {
		return s, false
	}
	if _, err := hex.Decode(raw[:], frame[:hex.EncodedLen(len(raw))]); err != nil {
		return s, false
	}
	s.series = binary.BigEndian.Uint32(raw[0:])
	s.number = binary.BigEndian.Uint32(raw[4:])
	s.at = time.Duration(binary.BigEndian.Uint64(raw[8:]))
	return s, true
}
