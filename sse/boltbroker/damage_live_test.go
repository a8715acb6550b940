package boltbroker

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/sse"
)

// inTime runs what may not hang.
func inTime(t *testing.T, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		panic(what + " hangs") // shows all stacks
	}
}

// A broken file is one that something else damages while it is open.
type broken struct {
	*Broker
	t     *testing.T
	acked map[uint64]string // data by seq
}

// readAll reads the whole record, by pages and by a tail.
func (b broken) readAll() (err error) {
	inTime(b.t, "Read", func() {
		var after sse.Position
		for {
			page, readErr := b.Read(context.Background(), after, []string{"*"}, 1<<20)
			if err = readErr; err != nil || page.Through == state(b.t, b.Broker).Newest {
				return
			}
			after = page.Through
		}
	})
	return err
}

func (b broken) tailAll() (err error) {
	inTime(b.t, "Tail", func() {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		err = b.Tail(ctx, state(b.t, b.Broker).Oldest, func(entries []sse.Entry) {
			if len(entries) == 0 { // the sign that all has been delivered
				cancel()
			}
		})
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (b broken) publishAll() (err error) {
	for _, data := range []string{"small", strings.Repeat("large", 100_000), "small"} {
		inTime(b.t, "Publish", func() {
			at, publishErr := b.Publish(context.Background(), []sse.Event{{Channels: []string{"a"}, Data: data}})
			if publishErr == nil {
				b.acked[at[0].Seq] = data
			}
			err = errors.Join(err, publishErr)
		})
	}
	return err
}

// A file was cut short while it was open, which struck a transaction just as it began,
// and left a lock of bbolt's behind. Another one that was under way then waited for
// that lock in order to end, and Close for it, for ever.
func TestDamageWhileReading(t *testing.T) {
	path := file(t)
	if err := os.WriteFile(path, sampleFile(t), fileMode); err != nil {
		t.Fatal(err)
	}
	b, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	reading, goOn := make(chan struct{}), make(chan struct{})
	var read sync.WaitGroup
	read.Go(func() {
		_ = b.view(func(*bbolt.Tx) error {
			close(reading)
			<-goOn
			return nil
		})
	})
	<-reading
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if err := b.view(func(*bbolt.Tx) error { return nil }); err == nil {
		t.Error("nothing is left to be read, and there is no error")
	}
	close(goOn)
	inTime(t, "what was under way", read.Wait)
	inTime(t, "Close", func() { _ = b.Close() })
}

// What happens to the file while it is open is an error of those who need what
// is gone, which names the file. It takes down neither the process nor, by
// waiting forever, Close, after which the file is unlocked.
func TestDamageWhileOpen(t *testing.T) {
	image := sampleFile(t)
	pageSize := int64(os.Getpagesize())
	cut := func(size int64) func(*os.File) error {
		return func(f *os.File) error { return f.Truncate(size) }
	}
	overwrite := func(from, to int64) func(*os.File) error {
		return func(f *os.File) error {
			_, err := f.WriteAt([]byte(strings.Repeat("x", int(to-from))), from)
			return err
		}
	}
	end := int64(len(image))
	const (
		read = 1 << iota
		publish
	)
	tests := []struct {
		name   string
		damage func(*os.File) error
		fails  int // surely; other things may
	}{
		{"nothing", func(*os.File) error { return nil }, 0},
		{"cut to nothing", cut(0), read | publish},
		{"cut within the first page", cut(100), 0},
		{"cut to one page", cut(pageSize), read | publish},
		{"cut to the meta pages", cut(2 * pageSize), read | publish},
		{"cut in half", cut(end / 2), 0},
		{"cut at the end", cut(end - pageSize), 0},
		{"metas overwritten", overwrite(0, 2*pageSize), read | publish},
		{"first meta overwritten", overwrite(0, pageSize), 0},
		{"second meta overwritten", overwrite(pageSize, 2*pageSize), 0},
		{"data overwritten", overwrite(2*pageSize, end), read | publish},
		{"all overwritten", overwrite(0, end), read | publish},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := file(t)
			if err := os.WriteFile(path, image, fileMode); err != nil {
				t.Fatal(err)
			}
			opened, err := Open(path, Options{})
			if err != nil {
				t.Fatal(err)
			}
			b := broken{opened, t, make(map[uint64]string)}
			other, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = other.Close() }()
			if err := test.damage(other); err != nil {
				t.Fatal(err)
			}
			b.check("Read", b.readAll(), test.fails&read != 0)
			b.check("Tail", b.tailAll(), test.fails&read != 0)
			b.check("Publish", b.publishAll(), test.fails&publish != 0)
			b.SetOptions(Options{MaxEvents: 10})
			b.check("Publish", b.publishAll(), test.fails&publish != 0)
			if err := b.Health(); (err == nil) != (b.publishAll() == nil) {
				t.Errorf("Health: %v", err)
			}
			b.check("Read", b.readAll(), test.fails&read != 0)
			inTime(t, "Close", func() { _ = b.Close() })
			b.lookAgain()
		})
	}
}

// lookAgain opens the file again: either it is found to be damaged, or all that
// was acknowledged is in it.
func (b broken) lookAgain() {
	b.t.Helper()
	again, err := Open(b.path, Options{})
	if errors.Is(err, errLocked) {
		b.t.Error(err)
	}
	if err != nil {
		return
	}
	kept := entries(b.t, again)
	for seq, data := range b.acked {
		if seq > kept[0].Position.Seq && (kept[seq-kept[0].Position.Seq].Event.Data != data) {
			b.t.Errorf("entry %d is not what was acknowledged", seq)
		}
	}
	if newest := kept[len(kept)-1].Position.Seq; len(b.acked) > 0 && b.acked[newest] == "" {
		b.t.Errorf("the newest entry is %d, which was not acknowledged", newest)
	}
	_ = again.Close()
}

// check holds an error to what is expected.
func (b broken) check(what string, err error, expected bool) {
	b.t.Helper()
	switch {
	case err == nil && expected:
		b.t.Errorf("%s does not notice", what)
	case err != nil && !strings.Contains(err.Error(), b.path) && !errors.Is(err, sse.ErrUnavailable):
		b.t.Errorf("%s: the error does not name the file: %v", what, err)
	case what == "Publish" && err != nil && !errors.Is(err, sse.ErrUnavailable):
		b.t.Errorf("%s: %v", what, err)
	}
}
