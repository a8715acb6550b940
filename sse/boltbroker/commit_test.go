package boltbroker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// slow is a disk whose sync takes five milliseconds.
func slow(update func() error) error {
	time.Sleep(5 * time.Millisecond)
	return update()
}

// Publishers that publish at the same time share commits: soon all of them are
// in each, however the first ones fell.
func TestGroupCommit(t *testing.T) {
	const each = 40
	for _, publishers := range []int{1, 2, 8, 64} {
		t.Run(fmt.Sprint(publishers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := open(t, file(t), Options{})
				d := onDisk(b)
				d.set(slow)
				var running sync.WaitGroup
				for range publishers {
					running.Go(func() {
						for range each {
							publish(t, b, "x")
						}
					})
				}
				running.Wait()
				commits := d.count()
				if most := each + 5; commits > most {
					t.Errorf("%d publishes took %d commits, want %d at most", publishers*each, commits, most)
				}
				if n := len(stored(t, b)); n != publishers*each {
					t.Errorf("%d events are kept", n)
				}
			})
		})
	}
}

// A publisher that goes away while its publish waits for its turn takes it
// back; one whose publish is being written learns what became of it.
func TestPublishIsWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, file(t), Options{})
		release := onDisk(b).hold()
		ctx, cancel := context.WithCancel(t.Context())
		taken := ask(ctx, b, on("a", "taken"))
		synctest.Wait()
		waiting := ask(ctx, b, on("a", "waiting"))
		synctest.Wait()
		cancel()
		if a := <-waiting; !errors.Is(a.err, context.Canceled) {
			t.Errorf("the one that waits gets %v", a.err)
		}
		release()
		if a := <-taken; a.err != nil {
			t.Errorf("the one that is being written gets %v", a.err)
		}
		if got := stored(t, b); len(got) != 1 || got[0] != "taken" {
			t.Errorf("kept are %q", got)
		}
	})
}

// One publish of a commit that is refused does no harm to the others.
func TestRefusedAmongOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, file(t), Options{})
		publishEvents(t, b, ending("over"))
		release := onDisk(b).hold()
		first := ask(t.Context(), b, on("a", "1"))
		synctest.Wait()
		refused := ask(t.Context(), b, on("a", "2"), on("over", "3"))
		other := ask(t.Context(), b, on("b", "4"))
		synctest.Wait()
		release()
		var ended *sse.EndedError
		if a := <-refused; !errors.As(a.err, &ended) || ended.Index != 1 {
			t.Errorf("the refused one gets %v", a.err)
		}
		for _, c := range []<-chan answer{first, other} {
			if a := <-c; a.err != nil {
				t.Errorf("another gets %v", a.err)
			}
		}
		if got := len(stored(t, b)); got != 3 {
			t.Errorf("%d events are kept, want 3", got)
		}
	})
}

// The file stops growing when the oldest events are given up as fast as others
// come, and so does the index.
func TestFileStaysBounded(t *testing.T) {
	const most = 2000
	b := open(t, file(t), Options{MaxEvents: most})
	size := func(events int) int64 {
		for range events / 500 {
			batch := make([]sse.Event, 500)
			for i := range batch {
				batch[i] = on("a", "0123456789")
			}
			publishEvents(t, b, batch...)
		}
		eventually(t, "trimmed", func() bool {
			s := state(t, b)
			return s.Newest.Seq-s.Oldest.Seq <= most+most/slackShare
		})
		info, err := os.Stat(b.path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	first, last := size(20_000), size(60_000)
	if last > first+first/4 {
		t.Errorf("the file has %d bytes after 20,000 events, and %d after 80,000", first, last)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if got := uint64(len(b.index.channels["a"].seqs)); got != b.ledger.Head().Seq-b.oldest {
		t.Errorf("%d entries are in the index, %d in the record", got, b.ledger.Head().Seq-b.oldest)
	}
}
