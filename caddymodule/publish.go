package caddymodule

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddy-sse/caddy-sse/sse"
)

// receiptJSON is the answer to a published event.
type receiptJSON struct {
	ID          sse.Position `json:"id"`
	Subscribers int          `json:"subscribers"`
}

// publish takes the events of a request, all or none.
func (q *requests) publish(w http.ResponseWriter, r *http.Request, channel string, named bool) error {
	body, err := q.readBody(w, r)
	if err != nil {
		return err
	}
	var events []sse.Event
	var isArray bool
	if named {
		events, err = q.rawEvent(r, channel, body)
	} else {
		events, isArray, err = q.envelopes(r, body)
	}
	if err != nil {
		return err
	}
	for i := range events {
		if err := q.check(&events[i]); err != nil {
			p := asProblem(err)
			if isArray {
				p.Index = &i
			}
			return p
		}
	}
	receipts, err := q.hub.Publish(r.Context(), events...)
	if err != nil {
		return publishProblem(err)
	}
	answer := make([]receiptJSON, len(receipts))
	for i, receipt := range receipts {
		answer[i] = receiptJSON{receipt.Position, receipt.Subscribers}
	}
	if isArray {
		return writeJSON(w, answer)
	}
	return writeJSON(w, answer[0])
}

// drained is how much of a body that is too large is read all the same. Many a
// client sends all before it reads the answer, and would be told of a broken
// connection instead of its mistake.
const drained = 4 << 20

// readBody reads a whole body within the limit.
func (q *requests) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, problemf(http.StatusUnsupportedMediaType, "bodies compressed with %.64s are not accepted; send it as it is", encoding).in("Content-Encoding")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, q.maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		_, _ = io.CopyN(io.Discard, r.Body, drained) // whether it ends is all the same
		return nil, problemf(http.StatusRequestEntityTooLarge, "the body has more than %d bytes, which is max_body", tooLarge.Limit)
	case err != nil:
		return nil, problemf(http.StatusBadRequest, "the body ended after %d bytes, before it was complete: %s; nothing was published", len(body), err)
	}
	return body, nil
}

// rawEvent makes an event of a body that is the data, whatever its type. The
// rest is in the query or in headers.
func (q *requests) rawEvent(r *http.Request, channel string, body []byte) ([]sse.Event, error) {
	query, err := q.query(r, "event", "id", "retry")
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	for _, name := range []string{"event", "id", "retry"} {
		header := "Sse-" + strings.ToUpper(name[:1]) + name[1:]
		values := append(slices.Clone(query[name]), r.Header.Values(header)...)
		if len(values) > 1 {
			return nil, problemf(http.StatusBadRequest, "%s is given %d times; give either the query parameter or the header %s, once", name, len(values), header).in(name)
		}
		if len(values) == 1 {
			fields[name] = values[0]
		}
	}
	if fields["id"] != "" || r.Header.Get("Idempotency-Key") != "" {
		return nil, errNoID()
	}
	e := sse.Event{Channels: []string{channel}, Name: fields["event"], Data: string(body)}
	if text, ok := fields["retry"]; ok {
		if e.Retry, err = parseRetry(text); err != nil {
			return nil, err
		}
	}
	return []sse.Event{e}, nil
}

// envelopes reads a body that describes its events.
func (q *requests) envelopes(r *http.Request, body []byte) (events []sse.Event, isArray bool, err error) {
	if _, err := q.query(r); err != nil {
		return nil, false, err
	}
	if r.Header.Get("Idempotency-Key") != "" {
		return nil, false, errNoID()
	}
	for _, header := range []string{"Sse-Event", "Sse-Id", "Sse-Retry"} {
		if r.Header.Get(header) != "" {
			return nil, false, problemf(http.StatusBadRequest, "the header %s is for /publish/{channel}; here the envelope says it", header).in(header)
		}
	}
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		mediaType = ""
	}
	switch mediaType {
	case "application/json":
		if !utf8.Valid(body) {
			return nil, false, problemf(http.StatusBadRequest, "the body is not valid UTF-8")
		}
		return parseJSON(body)
	case "application/x-www-form-urlencoded":
		event, err := parseForm(string(body))
		return []sse.Event{event}, false, err
	}
	return nil, false, problemf(http.StatusUnsupportedMediaType,
		"the Content-Type must be application/json or application/x-www-form-urlencoded, not %.128q; to publish a body of any type verbatim, POST it to /publish/{channel}",
		r.Header.Get("Content-Type")).in("Content-Type")
}

// parseForm reads an envelope whose fields are those of a form.
func parseForm(body string) (sse.Event, error) {
	var e sse.Event
	form, err := url.ParseQuery(body)
	if err != nil {
		return e, problemf(http.StatusBadRequest, "the form cannot be read: %s", err)
	}
	for name, values := range form {
		if len(values) > 1 && name != "channels" {
			return e, problemf(http.StatusBadRequest, "%s is given %d times", name, len(values)).in(name)
		}
		switch name {
		case "channel":
			e.Channels = append(e.Channels, values[0])
		case "channels":
			e.Channels = append(e.Channels, values...)
		case "data":
			e.Data = values[0]
		case "event":
			e.Name = values[0]
		case "retry":
			if e.Retry, err = parseRetry(values[0]); err != nil {
				return e, err
			}
		default:
			return e, unknownField(name)
		}
	}
	if form.Has("channel") && form.Has("channels") {
		return e, errBothChannels()
	}
	return e, nil
}

// check checks that the event is well formed, and that its channels may be
// published to.
func (q *requests) check(e *sse.Event) error {
	if err := e.Validate(); err != nil {
		return publishProblem(err)
	}
	for _, name := range e.Channels {
		if len(q.allow) > 0 && !coveredByAny(q.allow, name) {
			return problemf(http.StatusForbidden, "channel %q is not among those that this endpoint allows", name).in("channel")
		}
	}
	return nil
}

func parseRetry(text string) (time.Duration, error) {
	ms, err := strconv.ParseUint(text, 10, 32)
	if err != nil || ms == 0 {
		return 0, problemf(http.StatusBadRequest, "retry must be a whole number of milliseconds of at least 1, not %.64q", text).in("retry")
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// unknownField is the error for a field that is none of an envelope, or none
// yet.
func unknownField(name string) *problem {
	switch name {
	case "id":
		return errNoID()
	case "end":
		return problemf(http.StatusBadRequest, "channels cannot be ended yet: leave out end").in("end")
	}
	return problemf(http.StatusBadRequest, "%.64q is not a field of an envelope; it has channel or channels, data, event and retry", name).in(name)
}

// errNoID refuses what would be a promise: to publish an id only once.
func errNoID() *problem {
	return problemf(http.StatusBadRequest, "ids of the publisher's own, by which a publish can be repeated, are not supported yet: leave out id and Idempotency-Key").in("id")
}

func errBothChannels() *problem {
	return problemf(http.StatusBadRequest, "channel and channels are both given; channels is for several").in("channels")
}
