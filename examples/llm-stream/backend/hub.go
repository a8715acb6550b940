package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// requestTimeout bounds one attempt, so that a hub which accepts the
	// connection and never answers counts as unreachable.
	requestTimeout = 5 * time.Second
	// retryPause is the time between two attempts.
	retryPause = 250 * time.Millisecond
	// retryFor is for how long a publish is attempted. It must be less than
	// the 5 minutes for which the hub remembers an id.
	retryFor = 2 * time.Minute
)

// A hub is where events are published.
type hub struct {
	client *http.Client
	base   string
}

func newHub(base string) *hub {
	return &hub{&http.Client{Timeout: requestTimeout}, strings.TrimSuffix(base, "/")}
}

// An event is what is published at once.
type event struct {
	id   string // the same at each attempt
	name string // empty: the page's onmessage gets it
	data string
	last bool // the channel ends with it
}

// publish sends an event until the hub has it, which is when it answers 200.
// After any other outcome the event may have been published or not: the answer
// may be what got lost. Nobody has to know, since the hub delivers nothing for
// an id that it has seen.
func (h *hub) publish(ctx context.Context, channel string, e event) error {
	query := url.Values{"id": {e.id}}
	if e.name != "" {
		query.Set("event", e.name)
	}
	if e.last {
		query.Set("end", "true")
	}
	return h.insist(ctx, http.MethodPost, "/publish/"+url.PathEscape(channel)+"?"+query.Encode(), e.data)
}

// end ends a channel without a last event. To end it twice is no error.
func (h *hub) end(ctx context.Context, channel string) error {
	return h.insist(ctx, http.MethodDelete, "/channels/"+url.PathEscape(channel), "")
}

// insist sends a request again until it succeeds, or cannot.
func (h *hub) insist(ctx context.Context, method, path, body string) error {
	ctx, cancel := context.WithTimeout(ctx, retryFor)
	defer cancel()
	for {
		err := h.send(ctx, method, path, body)
		var refused *refusal
		if err == nil || errors.As(err, &refused) && !refused.temporary() {
			return err
		}
		if !sleep(ctx, retryPause) {
			return err
		}
	}
}

func (h *hub) send(ctx context.Context, method, path, body string) error {
	req, err := http.NewRequestWithContext(ctx, method, h.base+path, strings.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return err // it names the method and the address already
	}
	defer resp.Body.Close()
	// Read to the end, so that the connection serves the next word too.
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode != http.StatusOK {
		return newRefusal(resp.StatusCode, answer)
	}
	return nil
}

// A refusal is an answer other than success.
type refusal struct {
	status int
	detail string // from the problem+json body, may be empty
}

func newRefusal(status int, body []byte) *refusal {
	var problem struct {
		Detail string `json:"detail"`
	}
	// A proxy on the way may answer with anything: then the status says it all.
	_ = json.Unmarshal(body, &problem)
	return &refusal{status, problem.Detail}
}

// temporary reports whether the same request may succeed later.
func (r *refusal) temporary() bool {
	return r.status >= 500 || r.status == http.StatusTooManyRequests
}

func (r *refusal) Error() string {
	text := fmt.Sprintf("status %d %s", r.status, http.StatusText(r.status))
	if r.detail != "" {
		text += ": " + r.detail
	}
	return text
}

// sleep reports whether it slept to the end, which it does unless ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
