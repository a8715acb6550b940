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

func receiptOf(r sse.Receipt) receiptJSON { return receiptJSON{r.Position, r.Subscribers} }

// publish takes the events of a request, all or none; but lines, each by itself.
func (q *requests) publish(w http.ResponseWriter, r *http.Request, channel string, named bool) error {
	if err := checkEncoding(r); err != nil {
		return err
	}
	if !named && mediaType(r) == linesType {
		return q.publishLines(w, r)
	}
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
			return asProblem(err).at(i, isArray)
		}
	}
	if err := q.spend(len(events)); err != nil {
		return err
	}
	receipts, err := q.hub.current().Publish(r.Context(), events...)
	if err != nil {
		p := publishProblem(err)
		if i, refused := refusedIndex(err); refused {
			return p.at(i, isArray)
		}
		return p
	}
	answer := make([]receiptJSON, len(receipts))
	for i, receipt := range receipts {
		answer[i] = receiptOf(receipt)
	}
	if isArray {
		return writeJSON(w, answer)
	}
	return writeJSON(w, answer[0])
}

// checkEncoding refuses bodies that would have to be decompressed.
func checkEncoding(r *http.Request) error {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return problemf(http.StatusUnsupportedMediaType, "bodies compressed with %.64s are not accepted; send it as it is", encoding).in("Content-Encoding")
	}
	return nil
}

// mediaType returns the type of the body without its parameters, or nothing if
// it cannot be read.
func mediaType(r *http.Request) string {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return mediaType
}

// drained is how much of a body that is too large is read all the same. Many a
// client sends all before it reads the answer, and would be told of a broken
// connection instead of its mistake.
const drained = 4 << 20

// readBody reads a whole body within the limit.
func (q *requests) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
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
	query, err := q.query(r, "event", "id", "retry", "end")
	if err != nil {
		return nil, err
	}
	e := sse.Event{Channels: []string{channel}, Data: string(body)}
	for _, field := range []struct {
		name    string
		headers []string
	}{
		{"event", []string{"Sse-Event"}},
		{"id", []string{"Sse-Id", keyHeader}},
		{"retry", []string{"Sse-Retry"}},
		{"end", []string{"Sse-End"}},
	} {
		values := slices.Clone(query[field.name])
		for _, header := range field.headers {
			values = append(values, r.Header.Values(header)...)
		}
		if len(values) > 1 {
			return nil, problemf(http.StatusBadRequest, "%s is given %d times; give either the query parameter or the header %s, once",
				field.name, len(values), strings.Join(field.headers, " or ")).in(field.name)
		}
		if len(values) == 1 {
			if err := setText(&e, field.name, values[0]); err != nil {
				return nil, err
			}
		}
	}
	return []sse.Event{e}, nil
}

// envelopes reads a body that describes its events.
func (q *requests) envelopes(r *http.Request, body []byte) (events []sse.Event, isArray bool, err error) {
	if err := q.checkEnvelopes(r); err != nil {
		return nil, false, err
	}
	switch mediaType(r) {
	case "application/json":
		if !utf8.Valid(body) {
			return nil, false, errNotUTF8("body")
		}
		events, isArray, err = parseJSON(body)
	case "application/x-www-form-urlencoded":
		events = make([]sse.Event, 1)
		events[0], err = parseForm(string(body))
	default:
		return nil, false, problemf(http.StatusUnsupportedMediaType,
			"the Content-Type must be application/json, application/x-ndjson or application/x-www-form-urlencoded, not %.128q; to publish a body of any type verbatim, POST it to /publish/{channel}",
			r.Header.Get("Content-Type")).in("Content-Type")
	}
	if err == nil {
		err = setKey(r, events, isArray)
	}
	return events, isArray, err
}

// checkEnvelopes refuses, outside of the body, what envelopes have in them.
func (q *requests) checkEnvelopes(r *http.Request) error {
	if _, err := q.query(r); err != nil {
		return err
	}
	for _, header := range []string{"Sse-Event", "Sse-Id", "Sse-Retry", "Sse-End"} {
		if len(r.Header.Values(header)) > 0 {
			return problemf(http.StatusBadRequest, "the header %s is for /publish/{channel}; here the envelope says it", header).in(header)
		}
	}
	return nil
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
		case "channel", "channels":
			e.Channels = values
		default:
			if err := setText(&e, name, values[0]); err != nil {
				return e, err
			}
		}
	}
	if form.Has("channel") && form.Has("channels") {
		return e, errBothChannels()
	}
	return e, nil
}

// setText sets a field that is given as plain text.
func setText(e *sse.Event, name, value string) (err error) {
	switch name {
	case "data":
		e.Data = value
	case "event":
		e.Name = value
	case "retry":
		e.Retry, err = parseRetry(value)
	case "id":
		e.ID, err = value, checkID(value)
	case "end":
		e.End, err = parseEnd(value)
	default:
		err = unknownField(name)
	}
	return err
}

// check checks that the event is well formed, and that its channels may be
// published to.
func (q *requests) check(e *sse.Event) error {
	if err := e.Validate(); err != nil {
		return publishProblem(err)
	}
	for _, name := range e.Channels {
		if !q.grants.covers(name) {
			return q.notAllowed(name)
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

// checkID refuses the empty id. Who gives one means to be safe from doubles, and
// would not be.
func checkID(id string) error {
	if id == "" {
		return problemf(http.StatusBadRequest, "id is empty; give each event an id of its own, or leave it out").in("id")
	}
	return nil
}

func parseEnd(text string) (sse.Ending, error) {
	switch text {
	case "true":
		return sse.EndAfter, nil
	case "false":
		return sse.EndNone, nil
	}
	return sse.EndNone, problemf(http.StatusBadRequest, "end must be true or false, not %.64q", text).in("end")
}

// unknownField is the error for a field that is none of an envelope.
func unknownField(name string) *problem {
	return problemf(http.StatusBadRequest, "%.64q is not a field of an envelope; it has channel or channels, data, event, retry, id and end", name).in(name)
}

func errNotUTF8(what string) *problem {
	return problemf(http.StatusBadRequest, "the %s is not valid UTF-8", what)
}

func errBothChannels() *problem {
	return problemf(http.StatusBadRequest, "channel and channels are both given; channels is for several").in("channels")
}
