package caddymodule

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// redacted stands in logs for a token.
const redacted = "REDACTED"

// A takenParameter is a parameter that was taken out of a query.
type takenParameter struct {
	values    []string // those that are not empty
	malformed bool     // it cannot be told what it is
}

// takenKey is the key in a request's context of the takenParameter that is the
// token.
type takenKey struct{}

// conceal answers a request by serve, and keeps a token that is a query
// parameter out of the access log, and away from serve and from placeholders
// that are replaced afterwards. [JWT.read] still finds it. Without such a token,
// or on nil, it does nothing but serve.
//
// It returns no error if there was something to conceal: Caddy logs errors with
// the address of the request.
//
// What logs the request before it comes here still has the token: handlers in
// front of this one, which log at the level DEBUG if at all, and tracing.
func (j *JWT) conceal(w http.ResponseWriter, r *http.Request, serve func(http.ResponseWriter, *http.Request) error) error {
	if j == nil || j.From != fromQuery {
		return serve(w, r)
	}
	rest, taken := takeParameter(r.URL.RawQuery, j.FromName)
	cleaner := parameterCleaner(j.FromName)
	original, _ := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if rest == r.URL.RawQuery && cleaner.inURI(original.RequestURI) == original.RequestURI &&
		cleaner.inURI(r.Referer()) == r.Referer() {
		return serve(w, r)
	}
	ctx := context.WithValue(r.Context(), takenKey{}, taken)
	line := newAccessLine(ctx, j.access, w, r)
	line.clean(cleaner)
	defer line.write()
	ctx = context.WithValue(ctx, accessLineKey{}, line)
	if err := serve(w, cleaner.strip(r.WithContext(ctx), rest)); err != nil {
		j.log.LogAttrs(ctx, slog.LevelDebug, "could not answer", slog.Any("error", err))
	}
	return nil
}

// addLogField sets a field of the request's line in the access log.
func addLogField(ctx context.Context, field zap.Field) {
	if extra, ok := ctx.Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Set(field)
	}
	if line, _ := ctx.Value(accessLineKey{}).(*accessLine); line != nil {
		line.extra = append(slices.DeleteFunc(line.extra, func(f zap.Field) bool { return f.Key == field.Key }), field)
	}
}

// takeParameter returns a query without a parameter, and the parameter. It must
// find all that looks like it, even what [url.ParseQuery] would not: `;` was
// once a separator too.
func takeParameter(query, name string) (rest string, taken takenParameter) {
	rest = editParameters(query, name, func(_, value string, separator byte) string {
		text, err := url.QueryUnescape(value)
		switch {
		case err != nil || separator == ';':
			taken.malformed = true
		case text != "":
			taken.values = append(taken.values, text)
		}
		return ""
	})
	return rest, taken
}

// editParameters puts in place of each parameter of that name what edit returns
// for it: for its name and value as they are escaped, and the separator in front
// of it, zero at the beginning. The rest is left as it is.
func editParameters(query, name string, edit func(name, value string, separator byte) string) string {
	var b strings.Builder
	var separator byte
	began := false
	for rest := query; ; {
		end := strings.IndexAny(rest, "&;")
		piece := rest
		if end >= 0 {
			piece = rest[:end]
		}
		escaped, value, _ := strings.Cut(piece, "=")
		edited := piece
		if unescaped, err := url.QueryUnescape(escaped); err == nil && unescaped == name {
			edited = edit(escaped, value, separator)
		}
		if edited != "" || edited == piece {
			if began {
				b.WriteByte(separator)
			}
			began = true
			b.WriteString(edited)
		}
		if end < 0 {
			return b.String()
		}
		separator, rest = rest[end], rest[end+1:]
	}
}

// A parameterCleaner is the name of a parameter that is to be hidden.
type parameterCleaner string

// inQuery replaces the parameter's value in a query.
func (c parameterCleaner) inQuery(query string) string {
	return editParameters(query, string(c), func(name, _ string, _ byte) string { return name + "=" + redacted })
}

// inURI replaces the parameter's value in an address or a request target.
func (c parameterCleaner) inURI(uri string) string {
	path, query, found := strings.Cut(uri, "?")
	if !found {
		return uri
	}
	query, fragment, found := strings.Cut(query, "#")
	if found {
		fragment = "#" + fragment
	}
	return path + "?" + c.inQuery(query) + fragment
}

// strip takes the parameter out of a request, of which rest is the query
// without it. URLs are changed in place, since Caddy's placeholders have
// pointers to the same ones.
func (c parameterCleaner) strip(r *http.Request, rest string) *http.Request {
	r.URL.RawQuery = rest
	r.RequestURI = c.inURI(r.RequestURI)
	original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if !ok {
		return r
	}
	original.URL.RawQuery = c.inQuery(original.URL.RawQuery)
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		// The context has a copy of this string, which cannot be changed.
		repl.Set("http.request.orig_uri", c.inURI(original.RequestURI))
	}
	return r
}
