package ssetest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

func tailFaults() []fault {
	return []fault{
		{name: "gives no sign", found: "TailAnywhere", says: "in vain: the sign", inject: func(f *faulty) {
			f.delivers(func(deliver func([]sse.Entry), entries []sse.Entry) {
				if len(entries) > 0 {
					deliver(entries)
				}
			})
		}},
		{name: "gives its sign twice", found: "TailAnywhere", says: "without entries again", inject: func(f *faulty) {
			f.delivers(func(deliver func([]sse.Entry), entries []sse.Entry) {
				deliver(entries)
				if len(entries) == 0 {
					deliver(nil)
				}
			})
		}},
		{name: "gives its sign before what is kept", found: "TailAnywhere", says: "is handed before the sign", inject: func(f *faulty) {
			f.tail = func(ctx context.Context, after sse.Position, deliver func([]sse.Entry)) error {
				deliver(nil)
				return f.journal.Tail(ctx, after, func(entries []sse.Entry) {
					if len(entries) > 0 {
						deliver(entries)
					}
				})
			}
		}},
		{name: "delivers twice", found: "TailLive", says: "deliver was handed", inject: func(f *faulty) {
			f.delivers(func(deliver func([]sse.Entry), entries []sse.Entry) {
				deliver(entries)
				if len(entries) > 2 {
					deliver(entries)
				}
			})
		}},
		{name: "delivers concurrently", found: "TailLive", says: "deliver was called concurrently", inject: func(f *faulty) {
			f.delivers(func(deliver func([]sse.Entry), entries []sse.Entry) {
				if len(entries) < 2 {
					deliver(entries)
					return
				}
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						for range 20 {
							deliver(entries[:1])
						}
					})
				}
				wg.Wait()
				deliver(entries[1:])
			})
		}},
		{name: "has a hole between what is kept and what is live", found: "TailLive", says: "deliver was handed", inject: func(f *faulty) {
			f.tail = func(ctx context.Context, after sse.Position, deliver func([]sse.Entry)) error {
				page, err := f.journal.Read(ctx, after, []string{"*"}, 1<<30)
				if err != nil {
					return err
				}
				if len(page.Entries) > 0 {
					deliver(page.Entries)
				}
				time.Sleep(time.Millisecond)
				s, err := f.journal.State(ctx)
				if err != nil {
					return err
				}
				return f.journal.Tail(ctx, s.Newest, deliver)
			}
		}},
		{name: "delivers after Publish has returned", found: "TailLive", says: "has returned, and a tail is at", inject: func(f *faulty) {
			f.deliversLater()
		}},
		{name: "delivers after Tail has returned", found: "TailCancelled", says: "deliver was called after Tail had returned", inject: func(f *faulty) {
			f.tail = func(ctx context.Context, after sse.Position, deliver func([]sse.Entry)) error {
				done := make(chan error, 1)
				go func() { done <- f.journal.Tail(context.WithoutCancel(ctx), after, deliver) }()
				select {
				case <-ctx.Done():
					return ctx.Err()
				case err := <-done:
					return err
				}
			}
		}},
		{name: "ends Tail without an error", found: "TailCancelled", says: "error is <nil>, not context canceled", inject: func(f *faulty) {
			f.tail = func(ctx context.Context, after sse.Position, deliver func([]sse.Entry)) error {
				if err := f.journal.Tail(ctx, after, deliver); !errors.Is(err, context.Canceled) {
					return err
				}
				return nil
			}
		}},
		{name: "delivers after Close has returned", found: "TailClosed", says: "deliver was called after Close had returned", inject: func(f *faulty) {
			f.close = func() error {
				go func() {
					time.Sleep(5 * time.Millisecond)
					f.journal.Close()
				}()
				return nil
			}
		}},
		{name: "returns from another Close too soon", found: "TailClosed", says: "deliver was called after Close had returned", inject: func(f *faulty) {
			var before atomic.Bool
			f.close = func() error {
				if before.Swap(true) {
					return nil
				}
				time.Sleep(5 * time.Millisecond)
				return f.journal.Close()
			}
		}},
		{name: "goes on tailing when it is closed", found: "TailClosed", says: "in vain: Tail returns", inject: func(f *faulty) {
			f.tail = func(ctx context.Context, after sse.Position, deliver func([]sse.Entry)) error {
				err := f.journal.Tail(ctx, after, deliver)
				<-ctx.Done()
				return err
			}
		}},
		{name: "tails what never was", found: "TailGone", says: "is attached", inject: func(f *faulty) {
			f.tail = func(ctx context.Context, after sse.Position, deliver func([]sse.Entry)) error {
				err := f.journal.Tail(ctx, after, deliver)
				if errors.Is(err, sse.ErrGone) && after.Epoch != "another" {
					deliver(nil)
				}
				return err
			}
		}},
		{name: "does not look at the epoch", found: "TailGone", says: "is attached", inject: func(f *faulty) {
			f.tail = func(ctx context.Context, after sse.Position, deliver func([]sse.Entry)) error {
				after.Epoch = f.oldest.Epoch
				return f.journal.Tail(ctx, after, deliver)
			}
		}},
	}
}

// deliversLater makes the broker call deliver in a goroutine of its own.
func (f *faulty) deliversLater() {
	var running sync.WaitGroup
	f.tail = func(ctx context.Context, after sse.Position, deliver func([]sse.Entry)) error {
		queue := make(chan []sse.Entry, 10_000)
		var done sync.WaitGroup
		running.Add(1)
		defer running.Done()
		done.Go(func() {
			for entries := range queue {
				deliver(entries)
			}
		})
		err := f.journal.Tail(ctx, after, func(entries []sse.Entry) { queue <- entries })
		close(queue)
		done.Wait()
		return err
	}
	f.close = func() error {
		err := f.journal.Close()
		running.Wait()
		return err
	}
}

// page makes the broker change the pages that it returns.
func (f *faulty) page(change func(page *sse.Page, after sse.Position, channels []string)) {
	f.read = func(ctx context.Context, after sse.Position, channels []string, bytes int) (sse.Page, error) {
		page, err := f.journal.Read(ctx, after, channels, bytes)
		if err == nil {
			change(&page, after, channels)
		}
		return page, err
	}
}

func readFaults() []fault {
	return []fault{
		{name: "reads what never was", found: "ReadEdges", says: "error is <nil>, not sse: entries", inject: func(f *faulty) {
			f.read = func(ctx context.Context, after sse.Position, channels []string, bytes int) (sse.Page, error) {
				page, err := f.journal.Read(ctx, after, channels, bytes)
				if head := f.ledger.Head(); after.Epoch == head.Epoch && after.Seq > head.Seq {
					return sse.Page{Through: head}, nil
				}
				return page, err
			}
		}},
		{name: "counts what never was", found: "ReadEdges", says: "Count behind", inject: func(f *faulty) {
			f.count = func(ctx context.Context, after sse.Position, channels []string, limit int) (int, error) {
				n, err := f.journal.Count(ctx, after, channels, limit)
				if errors.Is(err, sse.ErrGone) {
					return 0, nil
				}
				return n, err
			}
		}},
		{name: "has pages that lead to the end", found: "ReadPages", says: "differ at entry", inject: func(f *faulty) {
			f.page(func(page *sse.Page, _ sse.Position, _ []string) { page.Through = f.ledger.Head() })
		}},
		{name: "has pages that lead behind the last entry", found: "ReadPages", says: "differ at entry", inject: func(f *faulty) {
			f.page(func(page *sse.Page, _ sse.Position, _ []string) {
				page.Through.Seq = min(page.Through.Seq+1, f.ledger.Head().Seq)
			})
		}},
		{name: "has pages that lead nowhere when they are empty", found: "ReadPages", says: "leads to the same page again", inject: func(f *faulty) {
			f.page(func(page *sse.Page, after sse.Position, _ []string) {
				if len(page.Entries) == 0 && !after.IsZero() {
					page.Through = after
				}
			})
		}},
		{name: "has pages that end before their last entry", found: "ReadPages", says: "on a page through", inject: func(f *faulty) {
			f.page(func(page *sse.Page, _ sse.Position, _ []string) {
				if n := len(page.Entries); n > 1 {
					page.Through = page.Entries[n-2].Position
				}
			})
		}},
		{name: "has pages of any size", found: "ReadPages", says: "without its last entry", inject: func(f *faulty) {
			f.read = func(ctx context.Context, after sse.Position, channels []string, _ int) (sse.Page, error) {
				return f.journal.Read(ctx, after, channels, 1<<30)
			}
		}},
		{name: "has no pages for large events", found: "ReadPages", says: "in the record", inject: func(f *faulty) {
			f.page(func(page *sse.Page, _ sse.Position, _ []string) {
				page.Entries = slices.DeleteFunc(page.Entries, func(e sse.Entry) bool { return len(e.Event.Data) > 100_000 })
			})
		}},
		{name: "counts each channel", found: "ReadChannels", says: "Count up to", inject: func(f *faulty) {
			f.count = func(ctx context.Context, after sse.Position, channels []string, limit int) (n int, err error) {
				for _, c := range channels {
					m, err := f.journal.Count(ctx, after, []string{c}, limit)
					if err != nil {
						return 0, err
					}
					n += m
				}
				return min(n, limit), nil
			}
		}},
		{name: "counts beyond the limit", found: "ReadPages", says: "Count up to 10", inject: func(f *faulty) {
			f.count = func(ctx context.Context, after sse.Position, channels []string, _ int) (n int, err error) {
				return f.journal.Count(ctx, after, channels, 1<<30)
			}
		}},
		{name: "has events on several channels twice", found: "ReadChannels", says: "on a page through", inject: func(f *faulty) {
			f.page(func(page *sse.Page, _ sse.Position, channels []string) {
				if len(channels) < 2 || len(page.Entries) == 0 || len(page.Entries[0].Event.Channels) < 2 {
					return
				}
				page.Entries = append([]sse.Entry{page.Entries[0]}, page.Entries...)
			})
		}},
		{name: "takes a pattern for longer names only", found: "ReadChannels", says: "differ at entry", inject: func(f *faulty) {
			f.page(func(page *sse.Page, _ sse.Position, channels []string) {
				page.Entries = slices.DeleteFunc(page.Entries, func(e sse.Entry) bool {
					return len(channels) == 1 && channels[0] == "a*" && slices.Equal(e.Event.Channels, []string{"a"})
				})
			})
		}},
		{name: "takes names for prefixes", found: "ReadChannels", says: "is on", inject: func(f *faulty) {
			f.read = func(ctx context.Context, after sse.Position, channels []string, bytes int) (sse.Page, error) {
				channels = slices.Clone(channels)
				for i := range channels {
					channels[i] = strings.TrimSuffix(channels[i], "*") + "*"
				}
				return f.journal.Read(ctx, after, channels, bytes)
			}
		}},
		{name: "shares a page's slice", found: "OwnSlices", says: ".0 follows .0", inject: func(f *faulty) {
			var shared []sse.Entry
			f.page(func(page *sse.Page, _ sse.Position, _ []string) {
				if shared == nil && len(page.Entries) > 0 {
					shared = page.Entries
				}
				if len(shared) == len(page.Entries) {
					page.Entries = shared
				}
			})
		}},
		{name: "shares a state's slice", found: "OwnSlices", says: "is not among the ended", inject: func(f *faulty) {
			var shared []sse.Ended
			f.state = func(ctx context.Context) (sse.State, error) {
				s, err := f.journal.State(ctx)
				if len(shared) != len(s.Ended) {
					shared = s.Ended
				}
				s.Ended = shared
				return s, err
			}
		}},
		{name: "loses an entry now and then", found: "Model", says: "differ at entry", inject: func(f *faulty) {
			f.page(func(page *sse.Page, _ sse.Position, channels []string) {
				page.Entries = slices.DeleteFunc(page.Entries, func(e sse.Entry) bool { return e.Position.Seq%100 == 99 && len(channels) == 3 })
			})
		}},
	}
}
