package caddymodule

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// origins are those of the pages, besides the site's own, that may use a route.
// Each is as a browser sends it (RFC 6454, section 6.2): a scheme and a host,
// and a port unless it is the scheme's own; or has `*.` for any subdomain; or is
// `*`, any site, whose pages may not send cookies.
type origins []string

const anyOrigin = "*"

func (o origins) check() error {
	for _, origin := range o {
		if origin == anyOrigin {
			continue
		}
		u, err := url.Parse(strings.Replace(origin, "://*.", "://", 1))
		switch {
		case err != nil || u.Scheme == "" || u.Host == "":
			return fmt.Errorf("origins: %q is no origin, such as https://app.example.com, https://*.example.com, or *", origin)
		case u.Scheme+"://"+u.Host != strings.Replace(origin, "://*.", "://", 1):
			return fmt.Errorf("origins: %q has more than a scheme, a host and a port: write %s://%s", origin, u.Scheme, u.Host)
		case strings.Contains(u.Host, "*") || u.Hostname() == "":
			return fmt.Errorf("origins: in %q only the whole first label of the host can be *, as in https://*.example.com", origin)
		case origin != strings.ToLower(origin):
			return fmt.Errorf("origins: a browser sends %q in lower case", origin)
		case (u.Scheme == "https" && u.Port() == "443") || (u.Scheme == "http" && u.Port() == "80"):
			return fmt.Errorf("origins: a browser leaves the port of %q out, as it is the scheme's own", origin)
		}
	}
	return nil
}

// named reports whether an origin is one of those that are named.
func (o origins) named(origin string) bool {
	return slices.ContainsFunc(o, func(allowed string) bool {
		scheme, domain, wild := strings.Cut(allowed, "://*.")
		if !wild {
			return allowed == origin
		}
		rest, ok := strings.CutPrefix(origin, scheme+"://")
		labels, ok2 := strings.CutSuffix(rest, "."+domain)
		return ok && ok2 && labels != "" && !strings.ContainsFunc(labels, notInHost)
	})
}

func notInHost(r rune) bool {
	return (r < '0' || r > '9') && (r < 'a' || r > 'z') && r != '-' && r != '.' && r != '_'
}

// admit refuses requests of pages that may not use the route, and has the
// browser give its answer to those that may. Programs that are no browsers do
// not say that they are a page, and are not concerned.
func (o origins) admit(w http.ResponseWriter, r *http.Request) error {
	w.Header().Add("Vary", "Origin")
	sent := r.Header.Values("Origin")
	switch {
	case len(sent) > 1:
		return problemf(http.StatusBadRequest, "the header Origin is given %d times", len(sent)).in("Origin")
	case sameSite(r):
		return nil
	case len(sent) == 0:
		return problemf(http.StatusForbidden, "a page of another site cannot use this as a part of its own; open it with EventSource, from an origin that this route names").
			in("Origin").because(refusedOrigin)
	case o.named(sent[0]):
		w.Header().Set("Access-Control-Allow-Credentials", "true")
	case slices.Contains(o, anyOrigin) && hasCredentials(r):
		// Or every site could act for its visitors here, even if it is not told what
		// comes of it.
		return problemf(http.StatusForbidden, "pages of the origin %.128q may use this route without cookies or passwords; to send them, their origin must be named by the option `origins`", sent[0]).
			in("Cookie").because(refusedOrigin)
	case slices.Contains(o, anyOrigin):
	default:
		return problemf(http.StatusForbidden, "pages of the origin %.128q may not use this route: it takes those of its own site, and of what its option `origins` names", sent[0]).
			in("Origin").because(refusedOrigin)
	}
	w.Header().Set("Access-Control-Allow-Origin", sent[0])
	w.Header().Set("Access-Control-Expose-Headers", "Retry-After, WWW-Authenticate")
	return nil
}

// hasCredentials reports whether a browser has added to a request what it knows of
// its user. A bearer's token is the page's own.
func hasCredentials(r *http.Request) bool {
	scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return r.Header.Get("Cookie") != "" || (scheme != "" && !strings.EqualFold(scheme, "Bearer"))
}

// sameSite reports whether a request comes from no page, or from one of the same
// origin. A browser says which in Sec-Fetch-Site, that a page cannot set; older
// ones say where it comes from, and the host must be ours. The scheme is left
// out, since what is in front of Caddy may have ended TLS.
func sameSite(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return true
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return r.Header.Get("Sec-Fetch-Site") == ""
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}

// Answers to what browsers ask before they send a request for another site's
// page (Fetch, section 3.3.5). They may keep an answer for some minutes.
const (
	corsMethods = "GET, POST"
	corsHeaders = "Authorization, Cache-Control, Content-Type, Last-Event-ID"
	corsMaxAge  = "600"
)

// preflight answers such a question, of an origin that was admitted.
func preflight(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Allow", streamMethods)
	if r.Header.Get("Access-Control-Request-Method") != "" {
		w.Header().Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
		w.Header().Set("Access-Control-Allow-Methods", corsMethods)
		w.Header().Set("Access-Control-Allow-Headers", corsHeaders)
		w.Header().Set("Access-Control-Max-Age", corsMaxAge)
	}
	w.WriteHeader(http.StatusNoContent)
}
