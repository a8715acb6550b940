package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// envelope is one event on its way to the hub.
type envelope struct {
	Channel string `json:"channel"`
	Event   string `json:"event"`
	Data    any    `json:"data"`
}

// publisher sends batches of events to one address.
type publisher struct {
	client *http.Client
	url    string
	token  string // empty: none is sent
}

// publish sends a batch as one JSON array, which the hub takes whole or not at
// all. It returns a *refusal when the hub answered with anything but success.
func (p *publisher) publish(ctx context.Context, batch []envelope) error {
	if len(batch) == 0 {
		return nil
	}
	body, err := json.Marshal(batch)
	if err != nil {
		return fmt.Errorf("encode batch: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if p.token != "" {
		req.Header.Set("Authorization", "Bearer "+p.token)
	}

	resp, err := p.client.Do(req)
	if err != nil {
		return err // it names the method and the address already
	}
	defer resp.Body.Close()
	// Read to the end, so that the connection serves the next batch too.
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode != http.StatusOK {
		return newRefusal(resp, answer)
	}
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

// refusal is an answer other than success.
type refusal struct {
	status     int
	detail     string        // from the problem+json body, may be empty
	retryAfter time.Duration // zero: the hub named none
}

func newRefusal(resp *http.Response, body []byte) *refusal {
	var problem struct {
		Detail string `json:"detail"`
	}
	// A proxy on the way may answer with anything: then the status says it all.
	_ = json.Unmarshal(body, &problem)
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	return &refusal{
		status:     resp.StatusCode,
		detail:     problem.Detail,
		retryAfter: max(0, time.Duration(seconds)*time.Second),
	}
}

func (r *refusal) Error() string {
	text := fmt.Sprintf("status %d %s", r.status, http.StatusText(r.status))
	if r.detail != "" {
		text += ": " + r.detail
	}
	return text
}
