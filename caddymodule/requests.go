package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/caddy-sse/caddy-sse/sse"
)

// requests answers what is asked of a hub from inside: by the sse_api handler
// and by Caddy's admin API alike.
type requests struct {
	hub     *liveHub
	grants  grants
	bucket  *rate.Limiter // bounds how many events are published; nil is not at all
	maxBody int64
	// ownQuery is a query parameter that is not for us.
	ownQuery string
	// ending is closed when requests that stay open have to end.
	ending <-chan struct{}
}

func notFound(path string) *problem {
	return problemf(http.StatusNotFound, "there is nothing at %.256s; there are /publish, /publish/{channel}, /channels, /channels/{channel}, /connections, /connections/{id}, /connections/{id}/channels and /health below the base", path)
}

// serve answers a request for a path below the base.
func (q *requests) serve(w http.ResponseWriter, r *http.Request, path string) error {
	if path != "" && path[0] != '/' {
		return notFound(path)
	}
	resource, name, named := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch {
	case resource == "publish":
		if r.Method != http.MethodPost {
			return methodNotAllowed(r.Method, "POST")
		}
		return q.publish(w, r, name, named)
	case resource == "channels" && named && r.Method == http.MethodDelete:
		return q.end(w, r, name)
	case resource == "channels" && named:
		return q.read(r, "GET, HEAD, DELETE", func() error { return q.channel(w, r, name) })
	case resource == "channels":
		return q.read(r, "GET, HEAD", func() error { return q.channels(w, r) })
	case resource == "connections":
		return q.connections(w, r, name, named)
	case resource == "health" && !named:
		return q.read(r, "GET, HEAD", func() error { return q.health(w, r) })
	case resource == "" && !named:
		return q.read(r, "GET, HEAD", func() error { return q.numbers(w, r) })
	}
	return notFound(path)
}

// read answers what is read. The methods are all that are allowed there.
func (q *requests) read(r *http.Request, methods string, answer func() error) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return methodNotAllowed(r.Method, methods)
	}
	return answer()
}

// numbers answers with the hub's numbers.
func (q *requests) numbers(w http.ResponseWriter, r *http.Request) error {
	if _, err := q.query(r); err != nil {
		return err
	}
	stats := q.hub.current().Stats()
	return writeJSON(w, struct {
		Hub       string                     `json:"hub"`
		Position  sse.Position               `json:"position"`
		Streams   int                        `json:"streams"`
		Channels  int                        `json:"channels"`
		Patterns  int                        `json:"patterns"`
		KeptBytes int64                      `json:"kept_bytes"`
		Published uint64                     `json:"published"`
		Delivered uint64                     `json:"delivered"`
		Closed    map[sse.CloseReason]uint64 `json:"closed"`
		Resets    map[sse.ResetReason]uint64 `json:"resets"`
		Refused   map[refusal]uint64         `json:"refused"`
		Away      int                        `json:"sessions_away"`
		Forgotten uint64                     `json:"sessions_forgotten"`
	}{
		q.hub.name, stats.Position, stats.Streams, stats.Channels, stats.Patterns,
		stats.KeptBytes, stats.Published, stats.Delivered, stats.Closed, stats.Resets,
		q.hub.refused.snapshot(), stats.Away, stats.Forgotten,
	})
}

type channelJSON struct {
	Channel     string       `json:"channel"`
	Subscribers int          `json:"subscribers"`
	Events      int          `json:"events"`
	Bytes       int          `json:"bytes"`
	Last        sse.Position `json:"last"`
	Ended       bool         `json:"ended,omitempty"`
}

type eventJSON struct {
	ID    sse.Position `json:"id"`
	Event string       `json:"event"`
	Data  string       `json:"data"`
	Time  time.Time    `json:"time"`
}

// Greatest and usual number of entries in one answer.
const (
	maxPage     = 1000
	defaultPage = 100
)

// channels answers with a page of the channels. The next one is asked for with
// the name that the answer ends with.
func (q *requests) channels(w http.ResponseWriter, r *http.Request) error {
	query, err := q.query(r, "prefix", "after", "limit")
	if err != nil {
		return err
	}
	limit, err := pageLimit(query)
	if err != nil {
		return err
	}
	page := struct {
		Channels []channelJSON `json:"channels"`
		Next     string        `json:"next,omitempty"`
	}{Channels: []channelJSON{}}
	infos, err := q.hub.current().Channels(r.Context(), query.Get("prefix"), query.Get("after"), limit+1, q.grants.covers)
	if err != nil {
		return publishProblem(err)
	}
	for _, info := range infos {
		if len(page.Channels) == limit {
			page.Next = page.Channels[limit-1].Channel
			break
		}
		page.Channels = append(page.Channels, channelJSON(info))
	}
	return writeJSON(w, page)
}

// channel answers with a channel and its newest kept events.
func (q *requests) channel(w http.ResponseWriter, r *http.Request, name string) error {
	query, err := q.query(r, "limit")
	if err != nil {
		return err
	}
	limit, err := pageLimit(query)
	if err != nil {
		return err
	}
	if err := sse.ValidateChannel(name); err != nil {
		return problemf(http.StatusBadRequest, "%s", err).in("channel")
	}
	if !q.grants.covers(name) {
		return q.notAllowed(name)
	}
	info, kept, ok, err := q.hub.current().Channel(r.Context(), name, limit)
	if err != nil {
		return publishProblem(err)
	}
	if !ok {
		return problemf(http.StatusNotFound, "channel %q has no subscribers, and no events that are remembered", name)
	}
	events := make([]eventJSON, len(kept))
	for i, e := range kept {
		events[i] = eventJSON(e)
	}
	return writeJSON(w, struct {
		channelJSON
		Kept []eventJSON `json:"kept"`
	}{channelJSON(info), events})
}

// end ends a channel without a last event. One that has ended stays so, and the
// answer is the position at which it did.
func (q *requests) end(w http.ResponseWriter, r *http.Request, name string) error {
	if _, err := q.query(r); err != nil {
		return err
	}
	e := sse.Event{Channels: []string{name}, End: sse.EndOnly}
	if err := q.check(&e); err != nil {
		return err
	}
	if err := q.spend(1); err != nil {
		return err
	}
	receipts, err := q.hub.current().Publish(r.Context(), e)
	var ended *sse.EndedError
	switch {
	case errors.As(err, &ended):
		return writeJSON(w, receiptJSON{ID: ended.At})
	case err != nil:
		return publishProblem(err)
	}
	return writeJSON(w, receiptOf(receipts[0]))
}

// health answers 200 only while the hub can publish and deliver.
func (q *requests) health(w http.ResponseWriter, r *http.Request) error {
	if _, err := q.query(r); err != nil {
		return err
	}
	if err := q.hub.current().Health(); err != nil {
		return problemf(http.StatusServiceUnavailable, "hub %s: %s", q.hub.name, err).with("Retry-After", retryAfter)
	}
	return writeJSON(w, struct {
		Status string `json:"status"`
	}{"ok"})
}

// query returns the query, in which only the named parameters may be, each at
// most once.
func (q *requests) query(r *http.Request, allowed ...string) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, errQuery()
	}
	for name, values := range query {
		switch {
		case name == q.ownQuery && name != "":
		case !slices.Contains(allowed, name):
			return nil, unknownParameter(name, allowed)
		case len(values) > 1:
			return nil, problemf(http.StatusBadRequest, "%s is given %d times", name, len(values)).in(name)
		}
	}
	return query, nil
}

func unknownParameter(name string, allowed []string) *problem {
	takes := "none"
	if len(allowed) > 0 {
		takes = strings.Join(allowed, ", ")
	}
	return problemf(http.StatusBadRequest, "%.64q is not a parameter of this request; it takes: %s", name, takes).in(name)
}

func pageLimit(query url.Values) (int, error) {
	text := query.Get("limit")
	if text == "" {
		return defaultPage, nil
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 1 || limit > maxPage {
		return 0, problemf(http.StatusBadRequest, "limit must be a number from 1 to %d", maxPage).in("limit")
	}
	return limit, nil
}

func writeJSON(w http.ResponseWriter, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	// The client may be gone; there is nobody else to tell.
	_, _ = w.Write(append(body, '\n'))
	return nil
}

// publishProblem says what a hub's refusal means to a publisher.
func publishProblem(err error) *problem {
	var field *sse.FieldError
	var ended *sse.EndedError
	switch {
	case errors.As(err, &field):
		return problemf(http.StatusBadRequest, "%s", field).in(field.Field)
	case errors.As(err, &ended) && ended.At.IsZero():
		return problemf(http.StatusConflict, "channel %q is ended by an earlier event of the same array: put this event before that, or use another name", ended.Channel).in("channel")
	case errors.As(err, &ended):
		return problemf(http.StatusConflict, "channel %q has ended at %s and takes no events any more: use another name", ended.Channel, ended.At).in("channel")
	case errors.Is(err, sse.ErrUnavailable), errors.Is(err, sse.ErrClosed):
		return problemf(http.StatusServiceUnavailable, "%s; nothing was published", err).with("Retry-After", retryAfter)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return problemf(http.StatusServiceUnavailable, "the request ended before the broker took it; nothing was published").with("Retry-After", retryAfter)
	}
	return asProblem(err)
}

// retryAfter is when, in seconds, what could not be done may be tried again.
const retryAfter = "5"

// refusedIndex returns which of several events the hub refused, if it refused
// one.
func refusedIndex(err error) (int, bool) {
	var field *sse.FieldError
	var ended *sse.EndedError
	switch {
	case errors.As(err, &field):
		return field.Index, true
	case errors.As(err, &ended):
		return ended.Index, true
	}
	return 0, false
}
