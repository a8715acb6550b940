package ssetest_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// A journal is a broker that keeps its record, as simple as one can be: all of
// it is in memory, under one lock, and each change is a line of JSON at the end
// of a file that only grows.
type journal struct {
	mu      sync.Mutex // guards what follows, and serialises deliver
	ledger  *sse.Ledger
	entries []sse.Entry // those that are kept
	oldest  sse.Position
	keep    ssetest.Retention
	file    *os.File
	write   func(*os.File, change) error
	tails   map[*func([]sse.Entry)]struct{}
	closed  chan struct{}
}

// A change is a line of the file: the epoch, entries, or what was given up.
type change struct {
	Epoch   string       `json:",omitempty"`
	Entries []sse.Entry  `json:",omitempty"`
	Oldest  sse.Position `json:",omitzero"`
}

func openJournal(place string, keep ssetest.Retention) (*journal, error) {
	path := filepath.Join(place, "journal")
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	whole := bytes.LastIndexByte(text, '\n') + 1 // what follows was not written to its end
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if err := file.Truncate(int64(whole)); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	j := &journal{
		keep: keep, file: file, write: writeChange,
		tails: make(map[*func([]sse.Entry)]struct{}), closed: make(chan struct{}),
	}
	if err := j.replay(text[:whole]); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return j, nil
}

func writeChange(file *os.File, c change) error {
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	_, err = file.Write(append(line, '\n'))
	return err
}

func (j *journal) replay(text []byte) error {
	for lines := bufio.NewReader(bytes.NewReader(text)); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var c change
		if err := json.Unmarshal(line, &c); err != nil {
			return err
		}
		if c.Epoch != "" {
			j.oldest = sse.Position{Epoch: c.Epoch}
		}
		j.entries = append(j.entries, c.Entries...)
		if !c.Oldest.IsZero() {
			j.oldest = c.Oldest
		}
	}
	if j.oldest.IsZero() {
		j.oldest = sse.Position{Epoch: sse.NewEpoch()}
		if err := j.write(j.file, change{Epoch: j.oldest.Epoch}); err != nil {
			return err
		}
	}
	head, at := j.oldest, time.Time{}
	if n := len(j.entries); n > 0 {
		head, at = j.entries[n-1].Position, j.entries[n-1].Time
	}
	j.ledger = sse.NewLedger(head, at)
	for i := range j.entries {
		e := &j.entries[i]
		if e.Event.ID != "" {
			j.ledger.Restore(sse.Repeat{Key: sse.KeyOf(e.Event.ID), Seq: e.Position.Seq, Time: e.Time})
		}
		if e.Event.End != sse.EndNone && e.Position.Seq > j.oldest.Seq {
			j.ledger.RestoreEnds(e)
		}
	}
	j.entries = slices.DeleteFunc(j.entries, func(e sse.Entry) bool { return e.Position.Seq <= j.oldest.Seq })
	return nil
}

// lock takes the lock and gives up what is too old or too much.
func (j *journal) lock() error {
	j.mu.Lock()
	select {
	case <-j.closed:
		return sse.ErrClosed
	default:
		return j.trim()
	}
}

func (j *journal) trim() error {
	bytes := int64(0)
	for _, e := range j.entries {
		bytes += int64(len(e.Event.Data))
	}
	gone := 0
	for ; gone < len(j.entries); gone++ {
		e := &j.entries[gone]
		many := j.keep.Entries > 0 && len(j.entries)-gone > j.keep.Entries
		old := j.keep.Age > 0 && time.Since(e.Time) > j.keep.Age
		large := j.keep.Bytes > 0 && bytes > j.keep.Bytes
		if !many && !old && !large {
			break
		}
		bytes -= int64(len(e.Event.Data))
		j.oldest = e.Position
		j.ledger.Forget(e)
	}
	if gone == 0 {
		return nil
	}
	j.entries = slices.Clone(j.entries[gone:])
	return j.write(j.file, change{Oldest: j.oldest})
}

func (j *journal) setRetention(keep ssetest.Retention) error {
	err := j.lock()
	defer j.mu.Unlock()
	j.keep = keep
	return errors.Join(err, j.trim())
}

func (j *journal) Publish(ctx context.Context, events []sse.Event) ([]sse.Position, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err := j.lock()
	defer j.mu.Unlock()
	if err != nil {
		return nil, err
	}
	entries, positions, err := j.ledger.Draft(events, time.Now())
	if err != nil || len(entries) == 0 {
		return positions, err
	}
	if err := j.write(j.file, change{Entries: entries}); err != nil {
		j.ledger.Rollback()
		return nil, err
	}
	j.ledger.Commit()
	j.entries = append(j.entries, entries...)
	for deliver := range j.tails {
		(*deliver)(entries)
	}
	return positions, nil
}

func (j *journal) Tail(ctx context.Context, after sse.Position, deliver func([]sse.Entry)) error {
	if err := j.attach(after, &deliver); err != nil {
		return err
	}
	defer func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		delete(j.tails, &deliver)
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-j.closed:
		return sse.ErrClosed
	}
}

func (j *journal) attach(after sse.Position, deliver *func([]sse.Entry)) error {
	err := j.lock()
	defer j.mu.Unlock()
	if err == nil {
		err = j.check(after)
	}
	if err != nil {
		return err
	}
	if kept := j.entries[after.Seq-j.oldest.Seq:]; len(kept) > 0 {
		(*deliver)(kept)
	}
	(*deliver)(nil)
	j.tails[deliver] = struct{}{}
	return nil
}

func (j *journal) check(after sse.Position) error {
	if after.Epoch != j.oldest.Epoch || after.Seq < j.oldest.Seq || after.Seq > j.ledger.Head().Seq {
		return fmt.Errorf("%w: %s", sse.ErrGone, after)
	}
	return nil
}

func (j *journal) Read(_ context.Context, after sse.Position, channels []string, bytes int) (sse.Page, error) {
	err := j.lock()
	defer j.mu.Unlock()
	if after.IsZero() {
		after = j.oldest
	}
	if err == nil {
		err = j.check(after)
	}
	if err != nil {
		return sse.Page{}, err
	}
	page := sse.Page{Through: j.ledger.Head()}
	size := 0
	for _, e := range j.entries[after.Seq-j.oldest.Seq:] {
		if !isOn(e.Event, channels) {
			continue
		}
		if size += len(e.Event.Data); size > bytes && len(page.Entries) > 0 {
			page.Through = page.Entries[len(page.Entries)-1].Position
			break
		}
		page.Entries = append(page.Entries, e)
	}
	return page, nil
}

func isOn(e sse.Event, channels []string) bool {
	return slices.ContainsFunc(e.Channels, func(name string) bool {
		return slices.ContainsFunc(channels, func(c string) bool { return sse.Covers(c, name) })
	})
}

func (j *journal) Count(ctx context.Context, after sse.Position, channels []string, limit int) (int, error) {
	page, err := j.Read(ctx, after, channels, 1<<40)
	return min(len(page.Entries), limit), err
}

func (j *journal) State(context.Context) (sse.State, error) {
	err := j.lock()
	defer j.mu.Unlock()
	if err != nil {
		return sse.State{}, err
	}
	return sse.State{Oldest: j.oldest, Newest: j.ledger.Head(), Ended: j.ledger.Ended()}, nil
}

func (j *journal) Health() error {
	err := j.lock()
	defer j.mu.Unlock()
	return err
}

func (j *journal) Close() error {
	err := j.lock()
	defer j.mu.Unlock()
	if errors.Is(err, sse.ErrClosed) {
		return nil
	}
	close(j.closed)
	return j.file.Close()
}
