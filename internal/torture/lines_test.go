package torture

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// lines publishes events over one request that stays open, and then repeats, if
// they have ids, those that were not acknowledged.
func (p *publisher) lines(ctx context.Context, n int) {
	b := p.array(n)
	b.key = ""
	open := p.sendLines(ctx, b)
	if !b.hasIDs {
		return
	}
	for _, pub := range open {
		p.w.counts.repeats.Add(1)
		rest := p.batchOf(pub)
		rest.hasIDs = true
		p.publish(ctx, rest)
	}
}

// sendLines writes lines and reads their answers at the same time. It returns
// the events that are not acknowledged.
func (p *publisher) sendLines(ctx context.Context, b *batch) (open []*ssetest.Publication) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	body, lines := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, pick(p.random, p.w.nodes)+"/sse/publish", body)
	if err != nil {
		p.w.t.Error(err)
		return nil
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	client := pick(p.random, []*http.Client{p.w.clients.post, p.w.clients.shared})
	sent := make(chan *ssetest.Publication, len(b.pubs))
	random := fork(p.random)
	var writing sync.WaitGroup
	writing.Go(func() {
		defer close(sent)
		for i, e := range b.envelopes() {
			text, err := json.Marshal(e)
			if err != nil {
				p.w.t.Error(err)
				return
			}
			b.pubs[i].Begin()
			sent <- b.pubs[i]
			if _, err := lines.Write(append(text, '\n')); err != nil {
				return
			}
			if random.IntN(20) == 0 {
				pace(random, 10*time.Millisecond)
			}
		}
		lines.Close() // it never fails
	})
	open, rest := p.readAnswers(client, req, sent)
	body.CloseWithError(io.ErrClosedPipe) // it never fails
	writing.Wait()
	for pub := range sent {
		if rest == unavailable {
			pub.Refused()
		}
		open = append(open, pub)
	}
	return open
}

// readAnswers sends the request and notes the answers to its lines. It returns
// those events that the server could not take for now, and what became of the
// lines without an answer.
func (p *publisher) readAnswers(client *http.Client, req *http.Request, sent <-chan *ssetest.Publication) (open []*ssetest.Publication, rest outcome) {
	resp, err := client.Do(req)
	switch {
	case err != nil && notSent(err):
		return nil, unavailable
	case err != nil:
		return nil, unknown
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		if resp.StatusCode != http.StatusServiceUnavailable {
			p.w.t.Errorf("publish lines: %s", resp.Status)
		}
		return nil, unavailable
	}
	answers := bufio.NewReader(resp.Body)
	for {
		text, err := answers.ReadBytes('\n')
		if err != nil {
			return open, unknown
		}
		pub, ok := <-sent
		if !ok {
			p.w.t.Errorf("an answer without a line: %s", text)
			return open, unknown
		}
		var answer struct {
			ID     sse.Position
			Status int
		}
		switch err := json.Unmarshal(text, &answer); {
		case err != nil:
			p.w.t.Errorf("publish lines: an answer is %s", text)
		case answer.Status == 0:
			pub.Acknowledged(answer.ID)
		case answer.Status == http.StatusServiceUnavailable:
			pub.Refused()
			open = append(open, pub)
		default:
			p.w.t.Errorf("publish lines: %s", text)
			pub.Refused()
		}
	}
}
