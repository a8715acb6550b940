package caddymodule

import (
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-sse/caddy-sse/sse"
)

// The words that may stand in the query where a position may.
const (
	sinceEarliest = "earliest"
	sinceLatest   = "latest"
)

// maxAllowed bounds what the placeholders of one entry of allow may stand for.
const maxAllowed = 1000

// Bounds of a connection id that a client made: 128 bits take at least 22
// characters of text.
const (
	minConnection = 22
	maxConnection = 128
)

// read returns what a request for a stream wants, if it may have it.
func (s *Subscribe) read(r *http.Request) (sse.SubscribeOptions, error) {
	want := sse.SubscribeOptions{ReplayLimit: s.Limits.Replay, Retry: time.Duration(s.Retry)}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return want, problemf(http.StatusBadRequest, "the query cannot be read: %s", err)
	}
	if want.Channels, err = s.readChannels(r, query["channel"]); err != nil {
		return want, err
	}
	if want.Start, err = readStart(r.Header.Values("Last-Event-ID"), query); err != nil {
		return want, err
	}
	want.Connection, err = readConnection(query)
	return want, err
}

// readChannels returns the route's channels and those that the client asked
// for, each once.
func (s *Subscribe) readChannels(r *http.Request, asked []string) ([]string, error) {
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	names, bad := expandAll(s.channels, repl, s.Limits.Channels, wildcardRefused)
	if bad != nil {
		return nil, problemf(http.StatusForbidden, "a channel of this route cannot be made for this request: %s", bad)
	}
	if n := len(asked); n > s.Limits.Channels {
		return nil, s.tooMany(n)
	}
	allow, bad := expandAll(s.allow, repl, maxAllowed, wildcardAlone)
	if bad != nil {
		s.log.DebugContext(r.Context(), "left out what a placeholder would allow", slog.Any("error", bad))
	}
	for _, name := range asked {
		if err := sse.ValidatePattern(name); err != nil {
			return nil, problemf(http.StatusBadRequest, "%s", err).in("channel")
		}
		if !coveredByAny(allow, name) && !coveredByAny(names, name) {
			return nil, problemf(http.StatusForbidden, "channel %q is not among those that this route allows", name).in("channel")
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	switch {
	case len(names) > s.Limits.Channels:
		return nil, s.tooMany(len(names))
	case len(names) == 0:
		return nil, problemf(http.StatusBadRequest, "no channel was asked for: name at least one, as in ?channel=news").in("channel")
	}
	return names, nil
}

func (s *Subscribe) tooMany(n int) *problem {
	return problemf(http.StatusBadRequest, "a stream can have %d channels at most, not %d; a prefix pattern such as news-* stands for many",
		s.Limits.Channels, n).in("channel")
}

func coveredByAny(granted []string, asked string) bool {
	return slices.ContainsFunc(granted, func(g string) bool { return sse.Covers(g, asked) })
}

// readStart returns where a stream begins. A Last-Event-ID header beats the
// query: a browser keeps it fresh, while the URL still has what was true when
// the page was loaded.
//
// A header that is no position is not an error: the browser sends by itself
// what some other server once gave it, and would give up for good on a 400. It
// is told by a reset instead. A query is written by the page's author, who can
// mend it.
func readStart(header []string, query url.Values) (sse.Start, error) {
	if len(header) > 0 && header[0] != "" {
		at, err := sse.ParsePosition(header[0])
		if err != nil {
			return sse.Unknown(), nil
		}
		return sse.After(at), nil
	}
	var field, value string
	for _, name := range []string{"last_event_id", "since"} {
		for _, v := range query[name] {
			if v == "" {
				continue
			}
			if value != "" && v != value {
				return sse.Start{}, problemf(http.StatusBadRequest, "%s=%.64s contradicts %s=%.64s; give one of them", name, v, field, value).in(name)
			}
			field, value = name, v
		}
	}
	switch value {
	case "", sinceLatest:
		return sse.Latest(), nil
	case sinceEarliest:
		return sse.Earliest(), nil
	}
	at, err := sse.ParsePosition(value)
	if err != nil {
		return sse.Start{}, problemf(http.StatusBadRequest, "%s; it can also be %s or %s", err, sinceEarliest, sinceLatest).in(field)
	}
	return sse.After(at), nil
}

func readConnection(query url.Values) (string, error) {
	ids := query["connection"]
	if len(ids) == 0 {
		return newConnection(), nil
	}
	id := ids[0]
	if len(ids) > 1 || len(id) < minConnection || len(id) > maxConnection || strings.ContainsFunc(id, notInConnection) {
		return "", problemf(http.StatusBadRequest, "connection must be one id of %d to %d letters, digits, - or _, such as a UUID; or leave it out",
			minConnection, maxConnection).in("connection")
	}
	return id, nil
}

func notInConnection(r rune) bool {
	return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '-' && r != '_'
}
