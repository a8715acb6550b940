package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// A publisher publishes in all ways that there are, one after the other.
type publisher struct {
	w      *world
	number int
	random *rand.Rand
	ids    int
	jobs   int
	done   []*batch // some that have ids and were acknowledged
}

func newPublisher(w *world, number int) *publisher {
	return &publisher{w: w, number: number, random: fork(w.random)}
}

// run publishes until stopping is done, and then goes on with what is not
// decided.
func (p *publisher) run(ctx, stopping context.Context) {
	for stopping.Err() == nil {
		switch p.random.IntN(16) {
		case 0:
			p.job(ctx)
		case 1:
			if p.random.IntN(4) == 0 {
				p.publish(ctx, p.burst())
			}
		case 2, 3, 4:
			p.lines(ctx, 1+p.random.IntN(100))
		case 5, 6, 7:
			p.publish(ctx, p.array(1+p.random.IntN(20)))
		case 8:
			p.malformed(ctx)
		case 9:
			p.repeat(ctx)
		default:
			p.publish(ctx, p.single())
		}
		select {
		case <-time.After(upTo(p.random, 20*time.Millisecond)):
		case <-stopping.Done():
		}
	}
}

// anyChannels returns one or several.
func (p *publisher) anyChannels() (names []string) {
	n := 1
	if p.random.IntN(4) == 0 {
		n = 2 + p.random.IntN(3)
	}
	for _, i := range p.random.Perm(len(p.w.channels))[:n] {
		names = append(names, p.w.channels[i])
	}
	return names
}

// fill gives an event a name and data.
func (p *publisher) fill(e sse.Event) sse.Event {
	e.Name = pick(p.random, []string{"", "", "message", "price", "größe"})
	switch p.random.IntN(20) {
	case 0:
		e.Data = strings.Repeat("0123456789abcdef", p.random.IntN(2000))
	case 1:
		e.Data = "two\nlines, \r\nand: more\r\r" + strings.Repeat("\n", p.random.IntN(3))
	case 2:
		e.Data = ""
	default:
		e.Data = strings.Repeat("ä ", p.random.IntN(60))
	}
	return e
}

func (p *publisher) newID() string {
	p.ids++
	return fmt.Sprintf("publisher %d/%d", p.number, p.ids)
}

// publish sends a batch until it is known what became of it, if it has ids by
// which it can be repeated.
func (p *publisher) publish(ctx context.Context, b *batch) outcome {
	for tries := 0; ; tries++ {
		o := b.attempt(ctx, p)
		switch {
		case ctx.Err() != nil:
			return unknown
		case o == unknown && !b.hasIDs, o == refused, o == unavailable && tries == 20:
			return o
		case o == acknowledged:
			if b.hasIDs && !b.isDelete() && len(p.done) < 50 {
				p.done = append(p.done, b)
			}
			return o
		}
		if o == unknown {
			p.w.counts.repeats.Add(1)
		}
		select {
		case <-time.After(upTo(p.random, retryPause)):
		case <-ctx.Done():
		}
	}
}

// repeat publishes again what was acknowledged. The history knows what the
// answer should be.
func (p *publisher) repeat(ctx context.Context) {
	if len(p.done) == 0 {
		return
	}
	i := p.random.IntN(len(p.done))
	b := p.done[i]
	p.done = append(p.done[:i], p.done[i+1:]...)
	if time.Since(b.made) > sse.RepeatWindow-patience {
		return
	}
	p.w.counts.repeats.Add(1)
	p.publish(ctx, b)
}

// malformed publishes an array of which one event is malformed, so that none
// may be published.
func (p *publisher) malformed(ctx context.Context) {
	b := p.array(1 + p.random.IntN(5))
	b.malformed = true
	if o := b.attempt(ctx, p); o == acknowledged {
		p.w.t.Errorf("an array with a malformed event was acknowledged")
	}
}

// job publishes on a channel of its own, and ends it.
func (p *publisher) job(ctx context.Context) {
	p.jobs++
	name := fmt.Sprintf("job-%d-%d", p.number, p.jobs)
	p.w.addJob(name)
	for range 1 + p.random.IntN(5) {
		e := p.fill(sse.Event{Channels: []string{name}})
		p.publish(ctx, p.batchOf(p.w.history.NewPublication(e)))
		pace(p.random, 50*time.Millisecond)
	}
	last := sse.Event{Channels: []string{name}, End: sse.EndOnly}
	if p.random.IntN(2) == 0 {
		last = p.fill(last)
		last.End = sse.EndAfter
	}
	b := p.batchOf(p.w.history.NewPublication(last))
	// A DELETE ends the channel again where its end has expired.
	b.hasIDs = !b.isDelete() || p.w.scenario.promises.KeepsAll
	p.publish(ctx, b)
	// Which is too late, unless the record has begun anew.
	p.publish(ctx, p.batchOf(p.w.history.NewPublication(p.fill(sse.Event{Channels: []string{name}}))))
}

// mark publishes one last event and returns its position.
func (p *publisher) mark(ctx context.Context) sse.Position {
	b := p.batchOf(p.w.history.NewPublication(sse.Event{Channels: []string{"mark"}}))
	b.hasIDs = true
	if p.publish(ctx, b) != acknowledged {
		p.w.t.Fatal("the last event is not acknowledged")
	}
	return b.positions[0]
}

// batchOf returns a batch of one event, of which an id is given to half.
func (p *publisher) batchOf(pub *ssetest.Publication) *batch {
	b := &batch{pubs: []*ssetest.Publication{pub}, made: time.Now(), hasIDs: p.random.IntN(2) == 0}
	b.form = pick(p.random, []form{raw, rawHeader, envelope, urlencoded})
	if len(pub.Event.Channels) > 1 {
		b.form = pick(p.random, []form{envelope, urlencoded})
	}
	if pub.Event.ID == "" { // else it was published before
		pub.Event.ID = p.newID()
	}
	return b
}

func (p *publisher) single() *batch {
	return p.batchOf(p.w.history.NewPublication(p.fill(sse.Event{Channels: p.anyChannels()})))
}

func (p *publisher) array(n int) *batch {
	b := &batch{made: time.Now(), hasIDs: p.random.IntN(2) == 0, form: array}
	if p.random.IntN(3) == 0 {
		b.key = p.newID()
	}
	for range n {
		p.add(b, p.fill(sse.Event{Channels: p.anyChannels()}))
	}
	return b
}

// burst returns more than sockets hold for those who do not read and, where
// memory is small, more than stays there for them.
func (p *publisher) burst() *batch {
	b := p.array(1)
	for range 10 {
		p.add(b, sse.Event{Channels: p.anyChannels(), Data: strings.Repeat("burst ", 5000)})
	}
	return b
}

func (p *publisher) add(b *batch, e sse.Event) {
	pub := p.w.history.NewPublication(e)
	pub.Event.ID = p.newID()
	b.pubs = append(b.pubs, pub)
}

func (w *world) addJob(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.jobs = append(w.jobs, name)
}

// newestJob returns the channel of the newest job, empty if there is none.
func (w *world) newestJob() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.jobs) == 0 {
		return ""
	}
	return w.jobs[len(w.jobs)-1]
}
