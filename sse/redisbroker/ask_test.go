package redisbroker_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/redistest"
	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/redisbroker"
)

// answering answers each question that a node gets with a name and the question.
func (n *node) answering(name string) {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for seen := 0; ; {
			n.mu.Lock()
			fresh := slices.Clone(n.got[seen:])
			seen += len(fresh)
			n.mu.Unlock()
			for _, e := range fresh {
				if q := e.Question; q != nil {
					if err := n.Answer(ctx, *q, []byte(name+" "+string(q.Body))); err != nil && ctx.Err() == nil {
						n.t.Errorf("Answer: %v", err)
					}
				}
			}
			select {
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
				return
			}
		}
	}()
	n.t.Cleanup(func() { cancel(); <-done })
}

// TestAsk promises that a question reaches all nodes, in its place among the events,
// and that all their answers come back.
func TestAsk(t *testing.T) {
	s := redistest.Start(t)
	one, two := start(t, s, redisbroker.Options{}), start(t, s, redisbroker.Options{})
	one.answering("one")
	two.answering("two")
	one.publish(on("a", "1"))
	answers, err := two.Ask(t.Context(), []byte("who?"))
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, a := range answers {
		texts = append(texts, string(a))
	}
	slices.Sort(texts)
	if got := strings.Join(texts, ", "); got != "one who?, two who?" {
		t.Errorf("the answers are %s", got)
	}
	one.publish(on("a", "2"))
	one.wait("three entries", func() bool {
		one.mu.Lock()
		defer one.mu.Unlock()
		return len(one.got) == 3
	})
	if q := one.got[1].Question; (q == nil || string(q.Body) != "who?") && one.got[0].Question == nil {
		t.Errorf("the entries are %+v, where the question comes before the second event", one.got)
	}
}

// A node that was cut off for so long that it does not know what it was asked, such as
// to end streams, cannot go on as if nothing had been.
func TestAskTheDeaf(t *testing.T) {
	s := redistest.Start(t)
	one := start(t, s, redisbroker.Options{})
	one.answering("one")
	s.Do("HSET", "{sse:default}:meta", "asks", "7")
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		_, _ = one.Ask(ctx, nil) // nobody is there to answer
	}()
	one.endsGone()
	cancel()
	<-asked
}

// TestAskTheDead promises that nobody waits for a node that is closed, nor for long for
// one that has died.
func TestAskTheDead(t *testing.T) {
	s := redistest.Start(t)
	short := redisbroker.Tuning{Life: 200 * time.Millisecond}
	one, two := startTuned(t, s, redisbroker.Options{}, short), startTuned(t, s, redisbroker.Options{}, short)
	one.answering("one")
	two.cancel()
	if err := two.Close(); err != nil {
		t.Fatal(err)
	}
	answers, err := one.Ask(t.Context(), nil)
	if err != nil || len(answers) != 1 {
		t.Errorf("%d have answered, %v", len(answers), err)
	}
	three := startTuned(t, s, redisbroker.Options{}, short) // does not answer
	three.cancel()                                          // and is not heard of any more
	answers, err = one.Ask(t.Context(), nil)
	if err != nil || len(answers) != 1 {
		t.Errorf("%d have answered, %v", len(answers), err)
	}
}

// TestAskTheDumb promises an error if a node that is alive does not answer.
func TestAskTheDumb(t *testing.T) {
	s := redistest.Start(t)
	one, _ := start(t, s, redisbroker.Options{}), start(t, s, redisbroker.Options{})
	one.answering("one")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if answers, err := one.Ask(ctx, nil); !errors.Is(err, sse.ErrUnavailable) {
		t.Errorf("%d have answered, %v", len(answers), err)
	}
}
