package torture

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// A batch is the events of one request.
type batch struct {
	pubs      []*ssetest.Publication
	form      form
	hasIDs    bool   // whether it can be repeated
	key       string // the Idempotency-Key of an array, in the place of ids
	malformed bool   // whether something that cannot be published goes along
	made      time.Time
	positions []sse.Position // of the latest answer
}

// A form is a way to write a request.
type form int

const (
	raw form = iota
	rawHeader
	envelope
	urlencoded
	array
)

// An outcome is what a publisher knows after an attempt.
type outcome int

const (
	acknowledged outcome = iota
	refused              // for good
	unavailable          // for now
	unknown
)

// requestTimeout bounds an attempt. What takes longer is unknown.
const requestTimeout = 20 * time.Second

type jsonEnvelope struct {
	Channel  string   `json:"channel,omitempty"`
	Channels []string `json:"channels,omitempty"`
	Data     string   `json:"data"`
	Event    string   `json:"event,omitempty"`
	ID       string   `json:"id,omitempty"`
	End      bool     `json:"end,omitempty"`
}

// isDelete reports whether the batch only ends a channel.
func (b *batch) isDelete() bool { return b.pubs[0].Event.End == sse.EndOnly }

func (b *batch) envelopes() []jsonEnvelope {
	var envelopes []jsonEnvelope
	for _, p := range b.pubs {
		e := jsonEnvelope{Channels: p.Event.Channels, Data: p.Event.Data, Event: p.Event.Name, End: p.Event.End != sse.EndNone}
		if len(e.Channels) == 1 {
			e.Channel, e.Channels = e.Channels[0], nil
		}
		if b.hasIDs && b.key == "" {
			e.ID = p.Event.ID
		}
		envelopes = append(envelopes, e)
	}
	if b.malformed {
		envelopes = append(envelopes, jsonEnvelope{Channel: "not a name"})
	}
	return envelopes
}

// request writes the request, each time anew.
func (b *batch) request(ctx context.Context, base string) (*http.Request, error) {
	e := b.pubs[0].Event
	switch {
	case b.isDelete():
		return http.NewRequestWithContext(ctx, http.MethodDelete, base+"/channels/"+url.PathEscape(e.Channels[0]), nil)
	case b.form == raw || b.form == rawHeader:
		return b.rawRequest(ctx, base+"/publish/"+url.PathEscape(e.Channels[0]))
	case b.form == urlencoded:
		one := b.envelopes()[0]
		values := url.Values{"data": {one.Data}, "event": {one.Event}, "channels": e.Channels}
		if one.ID != "" {
			values.Set("id", one.ID)
		}
		if one.End {
			values.Set("end", "true")
		}
		return newPost(ctx, base+"/publish", "application/x-www-form-urlencoded", []byte(values.Encode()))
	}
	var value any = b.envelopes()
	if b.form == envelope {
		value = b.envelopes()[0]
	}
	body, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	req, err := newPost(ctx, base+"/publish", "application/json", body)
	if err == nil && b.key != "" && b.hasIDs {
		req.Header.Set("Idempotency-Key", b.key)
	}
	return req, err
}

func (b *batch) rawRequest(ctx context.Context, address string) (*http.Request, error) {
	e := b.pubs[0].Event
	fields := map[string]string{"event": e.Name}
	if b.hasIDs {
		fields["id"] = e.ID
	}
	if e.End != sse.EndNone {
		fields["end"] = "true"
	}
	query := url.Values{}
	for name, value := range fields {
		if value != "" && b.form == raw {
			query.Set(name, value)
		}
	}
	req, err := newPost(ctx, address+"?"+query.Encode(), "text/plain", []byte(e.Data))
	if err == nil && b.form == rawHeader {
		for name, value := range fields {
			if value != "" {
				req.Header.Set("Sse-"+name, value)
			}
		}
	}
	return req, err
}

func newPost(ctx context.Context, address, contentType string, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err == nil {
		req.Header.Set("Content-Type", contentType)
	}
	return req, err
}

// attempt sends the batch and notes what the answer says of its events.
func (b *batch) attempt(ctx context.Context, p *publisher) outcome {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := b.request(ctx, pick(p.random, p.w.nodes)+"/sse")
	if err != nil {
		p.w.t.Error(err)
		return refused
	}
	for _, pub := range b.pubs {
		pub.Begin()
	}
	o := b.send(req, p)
	for i, pub := range b.pubs {
		switch o {
		case acknowledged:
			pub.Acknowledged(b.positions[i])
		case refused, unavailable:
			pub.Refused()
		case unknown:
		}
	}
	return o
}

func (b *batch) send(req *http.Request, p *publisher) outcome {
	resp, err := p.w.clients.post.Do(req)
	if err != nil {
		// One with a key net/http repeats by itself, so that the error may
		// be that of the second attempt.
		if notSent(err) && req.Header.Get("Idempotency-Key") == "" {
			return unavailable
		}
		return unknown
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case resp.StatusCode == http.StatusOK && err != nil:
		return unknown
	case resp.StatusCode == http.StatusOK:
		return b.receipts(body, p)
	case resp.StatusCode == http.StatusServiceUnavailable:
		return unavailable
	case resp.StatusCode == http.StatusConflict, resp.StatusCode == http.StatusBadRequest && b.malformed:
	default:
		p.w.t.Errorf("%s %s: %s %s", req.Method, req.URL, resp.Status, body)
	}
	return refused
}

// receipts reads the positions.
func (b *batch) receipts(body []byte, p *publisher) outcome {
	var receipts []struct{ ID sse.Position }
	if b.form != array {
		body = fmt.Appendf(nil, "[%s]", body)
	}
	if err := json.Unmarshal(body, &receipts); err != nil || len(receipts) != len(b.pubs) {
		p.w.t.Errorf("%d events were answered 200 %s", len(b.pubs), body)
		return unknown
	}
	b.positions = b.positions[:0]
	for _, r := range receipts {
		b.positions = append(b.positions, r.ID)
	}
	return acknowledged
}

// notSent reports whether a request cannot have reached the server.
func notSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
