package caddymodule

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// connectionJSON describes an open stream.
type connectionJSON struct {
	Connection string    `json:"connection"`
	User       string    `json:"user,omitempty"`
	Address    string    `json:"address,omitempty"`
	Channels   []string  `json:"channels"`
	Opened     time.Time `json:"opened"`
}

// connections answers requests below /connections. Who may only publish on some
// channels may neither see who listens, nor to what else, nor change or end a
// stream.
func (q *requests) connections(w http.ResponseWriter, r *http.Request, rest string, named bool) error {
	if !q.grants.covers("*") {
		return problemf(http.StatusForbidden, "who sees, changes and ends connections must be allowed all channels (*), and here it is fewer")
	}
	id, isChannels := strings.CutSuffix(rest, "/channels")
	switch {
	case named && rest == "channels":
		return q.only(r, http.MethodPost, func() error { return q.assignAll(w, r) })
	case named && isChannels:
		return q.only(r, http.MethodPost, func() error { return q.assign(w, r, id) })
	case named && r.Method == http.MethodDelete:
		return q.kick(w, r, rest)
	case named:
		return methodNotAllowed(r.Method, "DELETE")
	case r.Method == http.MethodDelete:
		return q.kickAll(w, r)
	}
	return q.read(r, "GET, HEAD, DELETE", func() error { return q.listConnections(w, r) })
}

func (q *requests) only(r *http.Request, method string, answer func() error) error {
	if r.Method != method {
		return methodNotAllowed(r.Method, method)
	}
	return answer()
}

// selection reads which connections a request is about.
func selection(query url.Values) (sse.Selection, error) {
	sel := sse.Selection{User: query.Get("user"), Channel: query.Get("channel")}
	if sel.Channel != "" {
		if err := sse.ValidatePattern(sel.Channel); err != nil {
			return sel, problemf(http.StatusBadRequest, "%s", err).in("channel")
		}
	}
	return sel, nil
}

// someSelection is selection for what must not be done to all by an oversight.
func someSelection(query url.Values) (sse.Selection, error) {
	sel, err := selection(query)
	if err == nil && sel == (sse.Selection{}) {
		return sel, problemf(http.StatusBadRequest, "say which connections: ?user=, ?channel=, or both; ?channel=* is all that have any")
	}
	return sel, err
}

// listConnections answers with a page of the open streams.
func (q *requests) listConnections(w http.ResponseWriter, r *http.Request) error {
	query, err := q.query(r, "channel", "user", "after", "limit")
	if err != nil {
		return err
	}
	limit, err := pageLimit(query)
	if err != nil {
		return err
	}
	sel, err := selection(query)
	if err != nil {
		return err
	}
	page := struct {
		Connections []connectionJSON `json:"connections"`
		Next        string           `json:"next,omitempty"`
	}{Connections: []connectionJSON{}}
	infos, err := q.hub.current().Connections(r.Context(), sel, query.Get("after"), limit+1)
	if err != nil {
		return publishProblem(err)
	}
	for _, info := range infos {
		if len(page.Connections) == limit {
			page.Next = page.Connections[limit-1].Connection
			break
		}
		if info.Channels == nil {
			info.Channels = []string{}
		}
		page.Connections = append(page.Connections, connectionJSON(info))
	}
	return writeJSON(w, page)
}

// kick ends one connection.
func (q *requests) kick(w http.ResponseWriter, r *http.Request, id string) error {
	if _, err := q.query(r); err != nil {
		return err
	}
	if id == "" {
		return errNoConnection()
	}
	kicked, err := q.hub.current().Kick(r.Context(), sse.Selection{Connection: id})
	switch {
	case err != nil:
		return publishProblem(err)
	case kicked == 0:
		return errNoConnection()
	}
	return writeKicked(w, 1)
}

// kickAll ends the connections of a user, of a channel, or of both.
func (q *requests) kickAll(w http.ResponseWriter, r *http.Request) error {
	query, err := q.query(r, "channel", "user")
	if err != nil {
		return err
	}
	sel, err := someSelection(query)
	if err != nil {
		return err
	}
	kicked, err := q.hub.current().Kick(r.Context(), sel)
	if err != nil {
		return publishProblem(err)
	}
	return writeKicked(w, kicked)
}

func writeKicked(w http.ResponseWriter, n int) error {
	return writeJSON(w, struct {
		Kicked int `json:"kicked"`
	}{n})
}

// assign changes what one connection gets.
func (q *requests) assign(w http.ResponseWriter, r *http.Request, id string) error {
	if _, err := q.query(r); err != nil {
		return err
	}
	ask, err := readChangeBody(w, r)
	if err != nil {
		return err
	}
	channels, err := q.hub.current().Assign(r.Context(), id, ask)
	if err != nil {
		return changeProblem(err)
	}
	return writeChannels(w, channels)
}

// assignAll changes what the connections of a user, of a channel, or of both get.
// Those that close meanwhile are left out.
func (q *requests) assignAll(w http.ResponseWriter, r *http.Request) error {
	query, err := q.query(r, "channel", "user")
	if err != nil {
		return err
	}
	sel, err := someSelection(query)
	if err != nil {
		return err
	}
	ask, err := readChangeBody(w, r)
	if err != nil {
		return err
	}
	changed, err := q.hub.current().AssignAll(r.Context(), sel, ask)
	if err != nil {
		return changeProblem(err)
	}
	return writeJSON(w, struct {
		Connections int `json:"connections"`
	}{changed})
}
