package ssetest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A fault is what is wrong with a broker: what it does, the case that finds it,
// and what that says, as a regular expression.
type fault struct {
	name   string
	found  string
	says   string
	inject func(f *faulty)
	opens  func(place string) // what goes wrong before the record is opened
}

func faults() []fault {
	return slices.Concat(publishFaults(), tailFaults(), readFaults(), retentionFaults(), lifeFaults())
}

func publishFaults() []fault {
	return []fault{
		{name: "skips a seq", found: "Dense", says: "is at", inject: func(f *faulty) {
			f.publish = func(ctx context.Context, events []sse.Event) ([]sse.Position, error) {
				if f.ledger.Head().Seq >= 6 {
					if _, err := f.journal.Publish(ctx, events[:1]); err != nil {
						return nil, err
					}
				}
				return f.journal.Publish(ctx, events)
			}
		}},
		{name: "answers an array in another order", found: "Dense", says: "follows", inject: func(f *faulty) {
			f.publish = func(ctx context.Context, events []sse.Event) ([]sse.Position, error) {
				positions, err := f.journal.Publish(ctx, events)
				slices.Reverse(positions)
				return positions, err
			}
		}},
		{name: "has no time", found: "Content", says: "from now", inject: func(f *faulty) {
			f.entries(func(e *sse.Entry) { e.Time = time.Time{} })
		}},
		{name: "has times that step back", found: "Content", says: "that of the entry before it", inject: func(f *faulty) {
			f.entries(func(e *sse.Entry) { e.Time = e.Time.Add(-time.Duration(e.Position.Seq) * time.Second) })
		}},
		{name: "drops the retry", found: "Content", says: "what was published is", inject: func(f *faulty) {
			f.entries(func(e *sse.Entry) { e.Event.Retry = 0 })
		}},
		{name: "drops line ends", found: "Content", says: "what was published is", inject: func(f *faulty) {
			f.entries(func(e *sse.Entry) { e.Event.Data = strings.TrimSuffix(e.Event.Data, "\n") })
		}},
		{name: "sorts channels", found: "Content", says: "what was published is", inject: func(f *faulty) {
			f.entries(func(e *sse.Entry) { e.Event.Channels = slices.Sorted(slices.Values(e.Event.Channels)) })
		}},
		{name: "keeps the publisher's slice", found: "Content", says: `is on \[\]`, inject: func(f *faulty) {
			handed := make(map[uint64]*sse.Event)
			f.publish = func(ctx context.Context, events []sse.Event) ([]sse.Position, error) {
				positions, err := f.journal.Publish(ctx, events)
				f.mu.Lock()
				defer f.mu.Unlock()
				for i, p := range positions {
					handed[p.Seq] = &events[i]
				}
				return positions, err
			}
			f.entries(func(e *sse.Entry) {
				if kept := handed[e.Position.Seq]; kept != nil {
					e.Event = *kept
				}
			})
			f.tail = f.journal.Tail
		}},
		{name: "takes an array in parts", found: "AllOrNone", says: "a publish that failed changed the state", inject: func(f *faulty) {
			f.publish = func(ctx context.Context, events []sse.Event) (positions []sse.Position, err error) {
				for i := range events {
					p, err := f.journal.Publish(ctx, events[i:i+1])
					if err != nil {
						return nil, err
					}
					positions = append(positions, p...)
				}
				return positions, nil
			}
		}},
		{name: "does not look at the context", found: "DoneContext", says: "error is <nil>, not context canceled", inject: func(f *faulty) {
			f.publish = func(ctx context.Context, events []sse.Event) ([]sse.Position, error) {
				return f.journal.Publish(context.WithoutCancel(ctx), events)
			}
		}},
		{name: "leaves a publish alone when its context ends", found: "CancelledPublish", says: "its publish failed", inject: func(f *faulty) {
			f.publish = func(ctx context.Context, events []sse.Event) ([]sse.Position, error) {
				positions, err := f.journal.Publish(ctx, events)
				select { // it is a slow one
				case <-ctx.Done():
					err = ctx.Err()
				case <-time.After(100 * time.Microsecond):
				}
				return positions, err
			}
		}},
		{name: "loses an ID", found: "Repeats", says: "known and new together", inject: func(f *faulty) {
			f.events(func(i int, e *sse.Event) {
				if i > 3 {
					e.ID = ""
				}
			})
		}},
		{name: "looks for repeats before it looks again", found: "RepeatsAtOnce", says: "for one publisher", inject: func(f *faulty) {
			var known sync.Map
			f.publish = func(ctx context.Context, events []sse.Event) ([]sse.Position, error) {
				id := events[0].ID
				if positions, ok := known.Load(id); ok {
					return positions.([]sse.Position), nil
				}
				time.Sleep(time.Millisecond)
				positions, err := f.journal.Publish(ctx, []sse.Event{on(events[0].Data)})
				known.Store(id, positions)
				return positions, err
			}
		}},
		{name: "forgets IDs after a minute", found: "RepeatWindow", says: "forgotten a second before its time", inject: func(f *faulty) {
			var swept time.Time
			f.events(func(_ int, e *sse.Event) {
				if now := time.Now(); now.Sub(swept) > time.Minute {
					f.ledger, swept = sse.NewLedger(f.ledger.Head(), now), now
				}
			})
		}},
		{name: "knows IDs for ever", found: "RepeatWindow", says: "an ID is known for", inject: func(f *faulty) {
			known := make(map[string]sse.Position)
			f.publish = func(ctx context.Context, events []sse.Event) ([]sse.Position, error) {
				if p, ok := known[events[0].ID]; ok {
					return []sse.Position{p}, nil
				}
				positions, err := f.journal.Publish(ctx, events)
				known[events[0].ID] = positions[0]
				return positions, err
			}
		}},
		{name: "takes events on ended channels", found: "Ends", says: "error is <nil>, not an EndedError", inject: func(f *faulty) {
			f.events(func(_ int, e *sse.Event) { e.End = sse.EndNone })
		}},
		{name: "takes events behind an end in one array", found: "EndsInArray", says: "error is <nil>, not an EndedError", inject: func(f *faulty) {
			f.publish = func(ctx context.Context, events []sse.Event) ([]sse.Position, error) {
				positions, err := f.journal.Publish(ctx, events)
				if e, ok := errors.AsType[*sse.EndedError](err); ok && e.At.IsZero() {
					return nil, nil
				}
				return positions, err
			}
		}},
		{name: "does not tell which event is too late", found: "Ends", says: "comes too late", inject: func(f *faulty) {
			f.refuses(func(e *sse.EndedError) { e.Index = 0 })
		}},
		{name: "does not tell where a channel ended", found: "Ends", says: "comes too late", inject: func(f *faulty) {
			f.refuses(func(e *sse.EndedError) { e.At = sse.Position{} })
		}},
		{name: "ends the first channel only", found: "Ends", says: "is not among the ended", inject: func(f *faulty) {
			f.state = func(ctx context.Context) (sse.State, error) {
				s, err := f.journal.State(ctx)
				s.Ended = slices.CompactFunc(s.Ended, func(a, b sse.Ended) bool { return a.Seq == b.Seq })
				return s, err
			}
		}},
		{name: "refuses the repeat of an end", found: "EndsRepeated", says: "Publish: sse: channel", inject: func(f *faulty) {
			f.publish = func(ctx context.Context, events []sse.Event) ([]sse.Position, error) {
				s, err := f.journal.State(ctx)
				for _, ended := range s.Ended {
					if slices.Contains(events[0].Channels, ended.Channel) {
						return nil, &sse.EndedError{Channel: ended.Channel, At: sse.Position{Epoch: s.Newest.Epoch, Seq: ended.Seq}}
					}
				}
				if err != nil {
					return nil, err
				}
				return f.journal.Publish(ctx, events)
			}
		}},
	}
}

func on(data string) sse.Event { return sse.Event{Channels: []string{"a"}, Data: data} }
