package ssetest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

func retentionFaults() []fault {
	return []fault{
		{name: "gives up more than it must", found: "Trimmed", says: "are kept, not the newest 40", inject: func(f *faulty) {
			f.retain = func(keep ssetest.Retention) error {
				keep.Entries /= 2
				return f.setRetention(keep)
			}
		}},
		{name: "gives up nothing", found: "Trimmed", says: "in vain", inject: func(f *faulty) {
			f.retain = func(ssetest.Retention) error { return nil }
		}},
		{name: "does not count bytes", found: "TrimmedBytes", says: "in vain", inject: func(f *faulty) {
			f.retain = func(keep ssetest.Retention) error { return f.setRetention(ssetest.Retention{Entries: keep.Entries}) }
		}},
		{name: "looks at the age when it publishes", found: "TrimmedByAge", says: "in vain", inject: func(f *faulty) {
			keep := f.keep
			f.keep = ssetest.Retention{}
			f.publish = func(ctx context.Context, events []sse.Event) ([]sse.Position, error) {
				if err := f.setRetention(keep); err != nil {
					return nil, err
				}
				defer f.setRetention(ssetest.Retention{})
				return f.journal.Publish(ctx, events)
			}
		}},
		{name: "hides a hole in Read", found: "Trimmed", says: "error is <nil>, not sse: entries behind that position", inject: func(f *faulty) {
			f.read = func(ctx context.Context, after sse.Position, channels []string, bytes int) (sse.Page, error) {
				page, err := f.journal.Read(ctx, after, channels, bytes)
				if errors.Is(err, sse.ErrGone) {
					return f.journal.Read(ctx, sse.Position{}, channels, bytes)
				}
				return page, err
			}
		}},
		{name: "hides a hole in Read when it is trimmed at once", found: "Concurrent", says: "seen", inject: func(f *faulty) {
			f.read = func(ctx context.Context, after sse.Position, channels []string, bytes int) (sse.Page, error) {
				page, err := f.journal.Read(ctx, after, channels, bytes)
				if errors.Is(err, sse.ErrGone) {
					return f.journal.Read(ctx, sse.Position{}, channels, bytes)
				}
				return page, err
			}
			f.count = func(context.Context, sse.Position, []string, int) (int, error) { return 0, nil }
		}},
		{name: "says gone of what is kept", found: "Concurrent", says: "gone, but the record is kept", inject: func(f *faulty) {
			f.read = func(ctx context.Context, after sse.Position, channels []string, bytes int) (sse.Page, error) {
				if after.Seq%5 == 4 {
					return sse.Page{}, sse.ErrGone
				}
				return f.journal.Read(ctx, after, channels, bytes)
			}
		}},
		{name: "begins anew when it is empty", found: "TrimmedEmpty", says: "all entries are gone, and the state is", inject: func(f *faulty) {
			if len(f.journal.entries) == 0 {
				f.oldest.Seq = 0
				f.ledger = sse.NewLedger(f.oldest, time.Time{})
			}
		}},
		{name: "forgets IDs with their entries", found: "TrimmedRepeats", says: "whose entries at", inject: func(f *faulty) {
			f.events(func(_ int, e *sse.Event) {
				if f.oldest.Seq > 0 {
					e.ID = ""
				}
			})
		}},
		{name: "forgets ends before their entries", found: "TrimmedEnds", says: "is forgotten whose end", inject: func(f *faulty) {
			f.state = func(ctx context.Context) (sse.State, error) {
				s, err := f.journal.State(ctx)
				if s.Oldest.Seq > 0 {
					s.Ended = nil
				}
				return s, err
			}
		}},
		{name: "never forgets ends", found: "TrimmedEnds", says: "in vain", inject: func(f *faulty) {
			var known []sse.Ended
			f.state = func(ctx context.Context) (sse.State, error) {
				s, err := f.journal.State(ctx)
				if len(s.Ended) > 0 {
					known = s.Ended
				}
				s.Ended = known
				return s, err
			}
		}},
		{name: "finds what was gone when it is opened again", found: "ReopenedTrimmed", says: "when it is opened again", inject: func(f *faulty) {
			f.write = func(file *os.File, c change) error {
				c.Oldest = sse.Position{}
				return writeChange(file, c)
			}
		}},
	}
}

func lifeFaults() []fault {
	lost := func(lose func(*sse.Event)) func(*faulty) {
		return func(f *faulty) {
			f.write = func(file *os.File, c change) error {
				c.Entries = slices.Clone(c.Entries)
				for i := range c.Entries {
					lose(&c.Entries[i].Event)
				}
				return writeChange(file, c)
			}
		}
	}
	return []fault{
		{name: "begins anew each time", found: "Reopened", says: "when it is opened again", inject: func(*faulty) {}, opens: func(place string) {
			os.Remove(filepath.Join(place, "journal"))
		}},
		{name: "has its epoch from its first entry", found: "ReopenedEmpty", says: "the state was", inject: func(*faulty) {}, opens: func(place string) {
			if text, err := os.ReadFile(filepath.Join(place, "journal")); err == nil && !strings.Contains(string(text), "Entries") {
				os.Remove(filepath.Join(place, "journal"))
			}
		}},
		{name: "loses IDs when it is closed", found: "Reopened", says: "when the record is opened again", inject: lost(func(e *sse.Event) { e.ID = "" })},
		{name: "loses ends when it is closed", found: "Reopened", says: "is not among the ended", inject: lost(func(e *sse.Event) { e.End = sse.EndNone })},
		{name: "loses names when it is closed", found: "Reopened", says: "differ at entry", inject: lost(func(e *sse.Event) { e.Name = "" })},
		{name: "reads when it is closed", found: "Closed", says: "Read after Close", inject: func(f *faulty) {
			f.read = func(ctx context.Context, after sse.Position, channels []string, bytes int) (sse.Page, error) {
				page, err := f.journal.Read(ctx, after, channels, bytes)
				if errors.Is(err, sse.ErrClosed) {
					err = nil
				}
				return page, err
			}
		}},
		{name: "is healthy when it is closed", found: "Closed", says: "Health after Close", inject: func(f *faulty) {
			f.health = func() error { return nil }
		}},
		{name: "cannot be closed twice", found: "Closed", says: "file already closed", inject: func(f *faulty) {
			f.close = func() error { return errors.Join(f.journal.Close(), f.file.Close()) }
		}},
		{name: "fails reads when it is closed", found: "CloseWhileReading", says: "what Close overtakes: error is broken", inject: func(f *faulty) {
			f.read = func(ctx context.Context, after sse.Position, channels []string, bytes int) (sse.Page, error) {
				page, err := f.journal.Read(ctx, after, channels, bytes)
				if errors.Is(err, sse.ErrClosed) {
					err = errors.New("broken")
				}
				return page, err
			}
		}},
		{name: "acknowledges what Close overtakes", found: "CloseWhilePublishing", says: "was acknowledged at", inject: func(f *faulty) {
			var forgiven atomic.Bool
			f.publish = func(ctx context.Context, events []sse.Event) ([]sse.Position, error) {
				positions, err := f.journal.Publish(ctx, events)
				if errors.Is(err, sse.ErrClosed) && !forgiven.Swap(true) {
					return make([]sse.Position, len(events)), nil
				}
				return positions, err
			}
		}},
		{name: "acknowledges before it writes", found: "Killed", says: "was acknowledged at|changed from", inject: func(f *faulty) {
			var waiting []change
			f.write = func(file *os.File, c change) error {
				waiting = append(waiting, c)
				if len(waiting) < 64 {
					return nil
				}
				for _, c := range waiting {
					if err := writeChange(file, c); err != nil {
						return err
					}
				}
				waiting = nil
				return nil
			}
		}},
		{name: "writes an array in parts", found: "Killed", says: "array ", inject: func(f *faulty) {
			f.write = func(file *os.File, c change) error {
				for _, e := range c.Entries {
					if err := writeChange(file, change{Entries: []sse.Entry{e}}); err != nil {
						return err
					}
					time.Sleep(5 * time.Millisecond) // a kill comes in between
				}
				c.Entries = nil
				return writeChange(file, c)
			}
		}},
		{name: "loses IDs when it is killed", found: "Killed", says: "repeated", inject: lost(func(e *sse.Event) { e.ID = "" })},
		{name: "begins anew when it was killed", found: "Killed", says: "after a kill", inject: func(f *faulty) {
			f.close = func() error {
				return errors.Join(f.journal.Close(), os.WriteFile(filepath.Join(filepath.Dir(f.file.Name()), "closed"), nil, 0o600))
			}
		}, opens: func(place string) {
			if os.Remove(filepath.Join(place, "closed")) != nil {
				os.Remove(filepath.Join(place, "journal"))
			}
		}},
	}
}
