package sse

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"
)

// maxQuestions is how many questions may wait for their answers. Beyond it they have
// none, and who asks is told that a node has not answered.
const maxQuestions = 10_000

// answerTimeout is how long an answer may take, as a change does that has to read the
// record. Whoever asks does not wait any longer.
const answerTimeout = 10 * time.Second

// A posed question waits for its answer.
type posed struct {
	Question
	asked   question
	done    *answer  // if what is asked was done already
	changed []string // connections that this changed
	err     error    // why it cannot be understood
}

// pose hands a question to the hub's answerer. It does not block: deliver must not. What
// only takes something away, be it a stream or a channel, is done there and then, before
// an event behind the question is taken in.
func (h *Hub) pose(q *Question) {
	if !h.attachedOnce() {
		return // it was asked before there was anybody here
	}
	p := posed{Question: *q}
	p.err = json.Unmarshal(q.Body, &p.asked)
	switch assign := p.asked.Assign; {
	case p.err != nil:
	case p.asked.Kick != nil:
		p.done = &answer{N: h.kick(*p.asked.Kick)}
	case assign != nil && len(assign.Change.Subscribe) == 0: // so that the record need not be read
		p.done = new(answer)
		*p.done, p.changed = h.assigned(h.closed, assign)
	}
	select {
	case h.questions <- p:
	default:
		h.logger().Error("too many questions of other nodes wait; one is not answered")
	}
}

// answerAll answers questions of all hubs until ctx is done. What may have to read the
// record does not hold up the others.
func (h *Hub) answerAll(ctx context.Context, shared SharedBroker) {
	changing := make(chan struct{}, maxReads)
	for {
		select {
		case q := <-h.questions:
			if q.done != nil || (q.asked.Change == nil && q.asked.Assign == nil) {
				h.reply(ctx, shared, q)
				continue
			}
			changing <- struct{}{}
			h.running.Go(func() {
				defer func() { <-changing }()
				h.reply(ctx, shared, q)
			})
		case <-ctx.Done():
			return
		}
	}
}

func (h *Hub) logger() *slog.Logger {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.options.Logger
}

func (h *Hub) reply(ctx context.Context, shared SharedBroker, q posed) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var a answer
	switch {
	case q.err != nil:
		a.Failure = newFailure(q.err) // it is of a version that knows more
	case q.done != nil:
		a = *q.done
		a.fail(h.markChanged(ctx, q.changed...))
	case q.Late && (q.asked.Take != nil || q.asked.Change != nil):
		return // who asked was told that it failed, and has gone on from that
	default:
		a = h.answer(ctx, &q.asked)
	}
	text, err := json.Marshal(a)
	if err == nil {
		err = shared.Answer(ctx, q.Question, text)
	}
	if err != nil && h.closed.Err() == nil {
		h.logger().Error("cannot answer another node", slog.Any("error", err))
	}
}

// answer does what is asked, with the streams and sessions of this hub.
func (h *Hub) answer(ctx context.Context, q *question) (a answer) {
	var err error
	switch {
	case q.List != nil:
		a.Connections = h.connections(q.List.Selection, q.List.After, q.List.Limit)
	case q.Assign != nil:
		var changed []string
		a, changed = h.assigned(ctx, q.Assign)
		err = h.markChanged(ctx, changed...)
	case q.Change != nil:
		a.Channels, err = h.changeOwn(ctx, q.Change.Connection, q.Change.User, q.Change.Change)
	case q.Knows != nil:
		a.Known, a.Opened = h.known(q.Knows.Connection, q.Knows.User)
	case q.Take != nil:
		a.Session, err = h.giveAway(q.Take.Connection, q.Take.User)
	case q.Count != nil:
		a.Counts = h.counts(q.Count)
	}
	a.fail(err)
	return a
}

// fail notes an error, unless there was one before.
func (a *answer) fail(err error) {
	if a.Failure == nil {
		a.Failure = newFailure(err)
	}
}

// assigned makes a change from inside, and returns the connections of which other hubs
// should know that they were changed.
func (h *Hub) assigned(ctx context.Context, q *assignQuestion) (a answer, changed []string) {
	var err error
	if id := q.Selection.Connection; id == "" {
		a.N, changed, err = h.assignAll(ctx, q.Selection, q.Change)
	} else if a.Channels, err = h.assignTo(ctx, q.Selection, q.Change); err == nil {
		changed = []string{id}
	}
	a.fail(err)
	return a, changed
}

// counts returns how many streams get the events of each of the channels.
func (h *Hub) counts(channels []string) []int {
	counts := make([]int, len(channels))
	for i := range channels {
		counts[i] = h.count(channels[i : i+1]) // the lock is taken for each: others must not wait for all
	}
	return counts
}
