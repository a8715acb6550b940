package boltbroker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// contents is what a file holds. Every number is counted from what is there.
type contents struct {
	format  string
	epoch   string
	head    uint64    // seq of the newest entry there ever was
	newest  time.Time // its time
	oldest  uint64    // seq behind which everything is kept
	since   time.Time // time of the oldest entry
	last    uint64    // seq of the newest entry that is kept, zero if none is
	bytes   int64
	index   index
	ends    []sse.Entry // that ended channels
	repeats []sse.Repeat
}

// load verifies a file and reads what is in it.
func load(path string) (*contents, error) {
	c := &contents{index: make(index)}
	expired := time.Now().Add(-sse.RepeatWindow)
	err := verify(path, func(bucket string, key, value []byte) error {
		switch bucket {
		case string(bucketMeta):
			return c.takeMeta(string(key), value)
		case string(bucketRecord):
			return c.takeEntry(key, value)
		case string(bucketIDs):
			r, err := decodeRepeat(key, value)
			if err == nil && r.Time.After(expired) {
				c.repeats = append(c.repeats, r)
			}
			return err
		}
		return errForeign
	})
	switch {
	case err != nil:
		return nil, err
	case c.format == "":
		return nil, errForeign
	case c.epoch == "":
		return nil, errors.New("its epoch is missing")
	}
	if c.last > 0 {
		c.head = c.last
	} else {
		c.oldest = c.head
	}
	// Entries of a commit that failed may stand behind the head as well as
	// their ids; which were kept is known from the entries alone.
	for len(c.repeats) > 0 && c.repeats[len(c.repeats)-1].Seq > c.head {
		c.repeats = c.repeats[:len(c.repeats)-1]
	}
	return c, nil
}

func (c *contents) takeMeta(key string, value []byte) error {
	value, err := unseal([]byte(key), value)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	switch key {
	case string(keyFormat):
		c.format = string(value)
		if n := len(formatName); len(value) <= n || c.format[:n] != formatName {
			return errForeign
		} else if c.format[n:] != string(formatVersion) {
			return fmt.Errorf("%w: it has the format %q", errNewer, c.format)
		}
	case string(keyEpoch):
		c.epoch = string(value)
	case string(keyHead):
		if len(value) != 16 {
			return errors.New("its head cannot be read")
		}
		c.head = binary.BigEndian.Uint64(value)
		c.newest = time.Unix(0, int64(binary.BigEndian.Uint64(value[8:])))
	}
	return nil
}

// appendHead appends what meta knows of the head.
func appendHead(b []byte, seq uint64, at time.Time) []byte {
	b = binary.BigEndian.AppendUint64(b, seq)
	return binary.BigEndian.AppendUint64(b, uint64(at.UnixNano()))
}

func (c *contents) takeEntry(key, value []byte) error {
	e, err := decodeEntry(c.epoch, key, value)
	if err != nil {
		return err
	}
	seq := e.Position.Seq
	switch {
	case c.last == 0:
		if seq <= c.head {
			return fmt.Errorf("entry %d is there although all up to %d were given up", seq, c.head)
		}
		if seq != c.head+1 {
			return fmt.Errorf("entry %d follows %d: some are missing", seq, c.head)
		}
		c.oldest, c.since = seq-1, e.Time
	case seq != c.last+1:
		return fmt.Errorf("entry %d follows %d: some are missing", seq, c.last)
	case e.Time.Before(c.newest):
		return fmt.Errorf("entry %d is older than that before it", seq)
	}
	c.last, c.newest = seq, e.Time
	c.bytes += storedBytes(&e)
	c.index.add(&e)
	if e.Event.End != sse.EndNone {
		c.ends = append(c.ends, e)
	}
	return nil
}
