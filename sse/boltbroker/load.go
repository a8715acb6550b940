package boltbroker

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
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
	// expired is the time before which ids are not remembered.
	expired time.Time
	// What is there to be compared with what there should be; see write.
	hasHead            bool
	ids                uint64
	lastSeq, idsStored uint64
	badMeta            error
}

// load verifies a file and reads what is in it.
func load(path string) (*contents, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	return loadFrom(file, info.Size())
}

func loadFrom(file io.ReaderAt, size int64) (*contents, error) {
	c := &contents{index: newIndex(), expired: time.Now().Add(-sse.RepeatWindow)}
	if err := verify(file, size, c); err != nil {
		return nil, err
	}
	if c.last > 0 {
		c.head = c.last
	} else {
		c.oldest = c.head
	}
	if c.head != c.lastSeq {
		return nil, fmt.Errorf("its newest entry should be %d, but is %d", c.lastSeq, c.head)
	}
	if c.ids != c.idsStored {
		return nil, fmt.Errorf("it should hold %d ids of publishers, but holds %d", c.idsStored, c.ids)
	}
	return c, nil
}

// bucket implements [visitor].
func (c *contents) bucket(name string, number uint64) error {
	switch name {
	case string(bucketRecord):
		c.lastSeq = number
		return c.checkMeta()
	case string(bucketIDs):
		c.idsStored = number
	}
	return nil
}

// element implements [visitor].
func (c *contents) element(bucket string, key, value []byte) error {
	switch bucket {
	case string(bucketMeta):
		// Of a file of somebody else's, every key may be wrong.
		c.badMeta = cmp.Or(c.badMeta, c.takeMeta(string(key), value))
		return nil
	case string(bucketRecord):
		return c.takeEntry(key, value)
	}
	return c.takeID(key, value)
}

func (c *contents) takeMeta(key string, value []byte) error {
	value, err := unseal([]byte(key), value)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	switch key {
	case string(keyFormat):
		c.format = string(value)
	case string(keyEpoch):
		c.epoch = string(value)
	case string(keyHead):
		if len(value) != 16 {
			return errors.New("its head cannot be read")
		}
		c.hasHead = true
		c.head = binary.BigEndian.Uint64(value)
		c.newest = time.Unix(0, int64(binary.BigEndian.Uint64(value[8:])))
	}
	return nil
}

// checkMeta tells whether the file is one that this program can read.
func (c *contents) checkMeta() error {
	version, ours := strings.CutPrefix(c.format, formatName)
	switch {
	case !ours:
		return errForeign
	case version != string(formatVersion):
		return fmt.Errorf("%w: it has the format %q", errNewer, c.format)
	case c.badMeta != nil:
		return c.badMeta
	case c.epoch == "":
		return errors.New("its epoch is missing")
	case !c.hasHead:
		return errors.New("its head is missing")
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

func (c *contents) takeID(key, value []byte) error {
	r, err := decodeRepeat(key, value)
	if err != nil {
		return err
	}
	c.ids++
	if r.Time.After(c.expired) {
		c.repeats = append(c.repeats, r)
	}
	return nil
}
