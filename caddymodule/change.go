package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddy-sse/caddy-sse/sse"
)

// maxChangeBody is the largest body of a request that changes what a stream
// gets, in bytes.
const maxChangeBody = 128 << 10

// changeTimeout is how long such a body may take.
const changeTimeout = 10 * time.Second

// change answers a client that changes what its stream gets:
//
//	POST {base}?connection=<id>                       with what parseChange reads
//	POST {base}/subscribe/{channel}?connection=<id>   and &since=, without one
//	POST {base}/unsubscribe/{channel}?connection=<id>
func (s *Subscribe) change(w http.ResponseWriter, r *http.Request, c *client) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return errQuery()
	}
	if err := s.hub.await(r.Context()); err != nil {
		return changeProblem(err)
	}
	// Whoever asks learns no more of a connection that is not theirs than that
	// they do not know it.
	connection, session, err := s.ownConnection(r.Context(), query, c)
	if err != nil {
		return err
	}
	ask, err := s.readChange(w, r, query)
	if err != nil {
		return err
	}
	// A stream of another route would go on with it when this one's rules change.
	ask.Session, ask.Asked, ask.Tuning = session, asked(r), s.route.tuning.Name
	if err := s.check(c, ask.Subscribe); err != nil {
		return err
	}
	ask.MaxChannels, ask.ReplayLimit, ask.Expires = s.Limits.Channels, s.Limits.Replay, c.expires
	channels, err := s.hub.current().Change(r.Context(), connection, c.user, ask)
	if err != nil {
		return changeProblem(s.discreet(err))
	}
	s.route.reconsider(owner{connection, c.user}, s.rules)
	s.log.LogAttrs(r.Context(), slog.LevelDebug, "stream changed",
		slog.String("connection", connection), slog.String("user", c.user), slog.Any("channels", channels))
	return writeChannels(w, channels)
}

// ownConnection returns the connection that a request is about, and what it is in
// the hub: the change comes when the body has, and until then it may have been
// kicked.
func (s *Subscribe) ownConnection(ctx context.Context, query url.Values, c *client) (id string, session uint64, err error) {
	ids := query["connection"]
	if len(ids) != 1 {
		return "", 0, problemf(http.StatusBadRequest, "say whose channels to change: ?connection= and the id with which the stream was opened, once").in("connection")
	}
	if isConnection(ids[0]) {
		if session, err = s.hub.current().Knows(ctx, ids[0], c.user); err != nil {
			return "", 0, changeProblem(s.discreet(err))
		}
	}
	if session == 0 {
		return "", 0, errNoConnection()
	}
	return ids[0], session, nil
}

func errNoConnection() *problem {
	return problemf(http.StatusNotFound, "there is no such connection: it was never opened, or by somebody else or by another route, or has been closed for longer than it is remembered").in("connection")
}

// readChange reads the request by its path.
func (s *Subscribe) readChange(w http.ResponseWriter, r *http.Request, query url.Values) (sse.Change, error) {
	path := r.URL.Path
	if below, ok := belowBase(path, s.Base); ok {
		path = below
	}
	_, subscribed, isSubscribe := strings.Cut(path, "/subscribe/")
	_, unsubscribed, isUnsubscribe := strings.Cut(path, "/unsubscribe/")
	if isSubscribe && isUnsubscribe { // a channel's name has the other in it
		isSubscribe = len(subscribed) > len(unsubscribed)
		isUnsubscribe = !isSubscribe
	}
	switch {
	case isSubscribe:
		start, err := parseSince(query.Get("since"))
		if err != nil {
			return sse.Change{}, err.in("since")
		}
		return sse.Change{Subscribe: []string{subscribed}, Start: start}, nil
	case isUnsubscribe:
		return sse.Change{Unsubscribe: []string{unsubscribed}}, nil
	}
	if query.Has("since") {
		return sse.Change{}, problemf(http.StatusBadRequest, "since is in the query; put it into the body, beside subscribe").in("since")
	}
	return readChangeBody(w, r)
}

// readChangeBody reads a body that says what to change. It must be said to be
// JSON, which a page of another site cannot do without asking first.
func readChangeBody(w http.ResponseWriter, r *http.Request) (sse.Change, error) {
	if err := checkEncoding(r); err != nil {
		return sse.Change{}, err
	}
	if mediaType(r) != "application/json" {
		return sse.Change{}, problemf(http.StatusUnsupportedMediaType, "the Content-Type must be application/json, not %.128q", r.Header.Get("Content-Type")).in("Content-Type")
	}
	// Who asks was checked when the header came. That must not be long ago when
	// the body has: where no deadline can be set, Caddy has its own.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(changeTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxChangeBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return sse.Change{}, problemf(http.StatusRequestEntityTooLarge, "the body has more than %d bytes", tooLarge.Limit)
	case err != nil:
		return sse.Change{}, problemf(http.StatusBadRequest, "the body ended after %d bytes, before it was complete", len(body))
	}
	return parseChange(body)
}

// parseChange reads an object with lists of names in `subscribe` and
// `unsubscribe`, and where those begin that are added in `since`.
func parseChange(body []byte) (ask sse.Change, err error) {
	if !utf8.Valid(body) {
		return ask, errNotUTF8("body")
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		return ask, problemf(http.StatusBadRequest, `the body must be a JSON object such as {"subscribe":["a"],"unsubscribe":["b"],"since":"earliest"}`)
	}
	if _, err := eachField(decoder, func(name string, value json.RawMessage) error { return setChange(&ask, name, value) }); err != nil {
		return ask, err
	}
	if len(ask.Subscribe)+len(ask.Unsubscribe) == 0 {
		return ask, problemf(http.StatusBadRequest, "there is nothing to change: name channels in subscribe or unsubscribe")
	}
	return ask, atEnd(decoder, "make it one change")
}

func setChange(ask *sse.Change, name string, value json.RawMessage) error {
	switch name {
	case "subscribe":
		return unmarshal(value, &ask.Subscribe, name, "an array of strings")
	case "unsubscribe":
		return unmarshal(value, &ask.Unsubscribe, name, "an array of strings")
	case "since":
		var since string
		if err := unmarshal(value, &since, name, "a string"); err != nil {
			return err
		}
		start, p := parseSince(since)
		if p != nil {
			return p.in(name)
		}
		ask.Start = start
		return nil
	}
	return problemf(http.StatusBadRequest, "%.64q is not a field of a change; it has subscribe, unsubscribe and since", name).in(name)
}

// changeProblem says what a hub's refusal of a change means.
func changeProblem(err error) *problem {
	switch {
	case errors.Is(err, sse.ErrNoConnection):
		return errNoConnection()
	case errors.Is(err, sse.ErrChannel), errors.Is(err, sse.ErrChange):
		return problemf(http.StatusBadRequest, "%s", err).in("channel")
	case errors.Is(err, sse.ErrWithdrawn):
		return problemf(http.StatusForbidden, "%s", err).in("channel")
	case errors.Is(err, sse.ErrOvertaken):
		return problemf(http.StatusTooManyRequests, "something was withdrawn while the request was on its way, so that it has to be looked at anew; try again in a second").with("Retry-After", "1")
	case errors.Is(err, sse.ErrChanging):
		return problemf(http.StatusTooManyRequests, "the stream has not come to its last changes yet; try again in a second").with("Retry-After", "1")
	}
	return problemf(http.StatusServiceUnavailable, "%s; ask again, since it may have been changed or not", err).with("Retry-After", retryAfter)
}

func writeChannels(w http.ResponseWriter, channels []string) error {
	if channels == nil {
		channels = []string{}
	}
	return writeJSON(w, struct {
		Channels []string `json:"channels"`
	}{channels})
}
