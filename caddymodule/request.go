package caddymodule

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

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

// read returns what a request for a stream wants, if the client may have it.
func (s *Subscribe) read(r *http.Request, c *client) (sse.SubscribeOptions, error) {
	want := sse.SubscribeOptions{
		User: c.user, Address: c.address, Fixed: c.fixed, May: c.may, Expires: c.expires, Asked: asked(r),
		Session: max(time.Duration(s.Session), 0), ReplayLimit: s.Limits.Replay, Retry: time.Duration(s.Retry),
		Tuning: &s.route.tuning,
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return want, errQuery()
	}
	if want.Connection, err = readConnection(query); err != nil {
		return want, err
	}
	if want.Channels, err = s.readChannels(r, c, query["channel"], want.Connection); err != nil {
		return want, err
	}
	if want.Start, err = readStart(r.Header.Values("Last-Event-ID"), query); err != nil {
		return want, err
	}
	if want.Connection == "" {
		want.Connection, want.Session = newConnection(), 0 // nobody can come back with it
	}
	return want, nil
}

// asked returns when the request came to Caddy, which is before any directive has
// allowed it.
func asked(r *http.Request) time.Time {
	start, _ := caddyhttp.GetVar(r.Context(), "start_time").(time.Time)
	return start
}

// errQuery is the error of a query that cannot be read. It does not show any of
// it, in which a token may be.
func errQuery() *problem {
	return problemf(http.StatusBadRequest, "the query cannot be read: a %% in it must be followed by two hexadecimal digits, and a ; must be written %%3B")
}

// readChannels returns the channels that the client asked for. One that comes back
// gets what is left of them: a browser asks for what it did at first, and would give
// up for good on a 403, also on what it may still have.
func (s *Subscribe) readChannels(r *http.Request, c *client, asked []string, connection string) ([]string, error) {
	if n := len(asked); n > s.Limits.Channels {
		return nil, s.tooMany(n)
	}
	asked, lost := s.leaveOut(r, c, asked, connection)
	if err := s.check(c, asked); err != nil {
		return nil, err
	}
	n := countDistinct(c.fixed, asked)
	switch {
	case n > s.Limits.Channels:
		return nil, s.tooMany(n)
	case n > 0:
		return asked, nil
	case len(lost) == 0:
		return nil, problemf(http.StatusBadRequest, "no channel was asked for: name at least one, as in ?channel=news").in("channel")
	case s.knows(c, connection) != 0: // and what that was changed to
		return asked, nil
	}
	return nil, s.notAllowed(c, lost[0])
}

// leaveOut returns the channels without those that the client had, as far as can be
// told, and may not have any more.
func (s *Subscribe) leaveOut(r *http.Request, c *client, asked []string, connection string) (left, lost []string) {
	comesBack := r.Header.Get("Last-Event-ID") != "" && !s.lacksToken(c)
	for _, name := range asked {
		gone := sse.ValidatePattern(name) == nil && !c.may(name) &&
			(comesBack || (s.knows(c, connection) != 0 && s.hub.current().Withdrawn(connection, c.user, name)))
		if gone {
			lost = append(lost, name)
		} else {
			left = append(left, name)
		}
	}
	return left, lost
}

// knows returns what the hub knows the client's connection by, zero if it does not.
func (s *Subscribe) knows(c *client, connection string) (session uint64) {
	if !isConnection(connection) || !s.hub.isOpen() {
		return 0
	}
	return s.hub.current().KnowsHere(connection, c.user)
}

func countDistinct(lists ...[]string) int {
	names := make(map[string]struct{})
	for _, list := range lists {
		for _, name := range list {
			names[name] = struct{}{}
		}
	}
	return len(names)
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
		start, err := sse.ParseStart(header[0])
		if err != nil {
			return sse.Unknown(), nil
		}
		return start, nil
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
	start, err := parseSince(value)
	if err != nil {
		return start, err.in(field)
	}
	return start, nil
}

// parseSince reads where to begin, as it stands in a query or a body.
func parseSince(value string) (sse.Start, *problem) {
	switch value {
	case "", sinceLatest:
		return sse.Latest(), nil
	case sinceEarliest:
		return sse.Earliest(), nil
	}
	start, err := sse.ParseStart(value)
	if err != nil {
		return start, problemf(http.StatusBadRequest, "%s; it can also be %s or %s", err, sinceEarliest, sinceLatest)
	}
	return start, nil
}

// readConnection returns the id that the client made, empty if it did not.
func readConnection(query url.Values) (string, error) {
	ids := query["connection"]
	if len(ids) == 0 {
		return "", nil
	}
	id := ids[0]
	if len(ids) > 1 || !isConnection(id) {
		return "", problemf(http.StatusBadRequest, "connection must be one id of %d to %d letters, digits, - or _, such as a UUID; or leave it out",
			minConnection, maxConnection).in("connection")
	}
	return id, nil
}

func isConnection(id string) bool {
	return len(id) >= minConnection && len(id) <= maxConnection && !strings.ContainsFunc(id, notInConnection)
}

func notInConnection(r rune) bool {
	return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '-' && r != '_'
}

// newConnection returns an identity that nobody can guess.
func newConnection() string {
	return rand.Text() // 128 bits or more
}
