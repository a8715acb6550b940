package caddymodule

import (
	"errors"
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A template is a channel name or pattern with placeholders: alternately text
// and the names of placeholders, beginning and ending with text.
type template struct {
	source string
	parts  []string
}

// parseTemplates checks what can be checked before there is a request.
func parseTemplates(option string, sources []string) ([]template, error) {
	var parsed []template
	for _, source := range sources {
		t, err := parseTemplate(source)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", option, err)
		}
		parsed = append(parsed, t)
	}
	return parsed, nil
}

func parseTemplate(source string) (template, error) {
	t := template{source: source}
	text, rest, found := strings.Cut(source, "{")
	for found {
		name, behind, closed := strings.Cut(rest, "}")
		switch {
		case !closed:
			return t, fmt.Errorf("%q has a placeholder without an end", source)
		case name == "":
			return t, fmt.Errorf("%q has a placeholder without a name", source)
		}
		t.parts = append(t.parts, text, name)
		text, rest, found = strings.Cut(behind, "{")
	}
	t.parts = append(t.parts, text)
	return t, t.checkText()
}

// checkText checks the text around the placeholders as a part of a name or
// pattern, with the placeholders' values left out.
func (t template) checkText() error {
	var joined strings.Builder
	for i := 0; i < len(t.parts); i += 2 {
		joined.WriteString(t.parts[i])
	}
	text := joined.String()
	switch {
	case len(t.parts) == 1, text != "":
		if strings.Contains(text, "}") {
			return fmt.Errorf("%q ends a placeholder that it does not begin", t.source)
		}
		if strings.HasSuffix(text, "*") && !strings.HasSuffix(t.source, "*") {
			return fmt.Errorf("%q: * is allowed as the last character only", t.source)
		}
		return sse.ValidatePattern(text)
	}
	return nil
}

// Errors of an expansion.
var (
	errTooMany = errors.New("its placeholders stand for more entries")
	errWidens  = errors.New("a placeholder's value must not hold *, which would widen it")
)

// A wildcard says whether a placeholder that stands alone may have a value
// that is a pattern.
type wildcard int

const (
	wildcardRefused wildcard = iota
	wildcardAlone
)

// expandAll returns what the templates stand for in a request, each name once,
// and an error for the last entry that was left out.
func expandAll(templates []template, repl *caddy.Replacer, limit int, alone wildcard) (names []string, bad error) {
	seen := make(map[string]bool)
	for _, t := range templates {
		expanded, err := t.expand(repl, limit)
		if err != nil {
			bad = fmt.Errorf("%q: %w than %d", t.source, err, limit)
			continue
		}
		for _, name := range expanded {
			if err := t.check(name, alone); err != nil {
				bad = err
			} else if !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	return names, bad
}

// check checks an expanded name. It may be a pattern if the template says so
// itself, or leaves everything to one placeholder and that is allowed: a user
// whose name is * must not get user-*.
func (t template) check(name string, alone wildcard) error {
	onlyPlaceholder := len(t.parts) == 3 && t.parts[0]+t.parts[2] == ""
	mayBePattern := strings.HasSuffix(t.source, "*") || (onlyPlaceholder && alone == wildcardAlone)
	if strings.HasSuffix(name, "*") && !mayBePattern {
		return fmt.Errorf("%q: %w", t.source, errWidens)
	}
	return sse.ValidatePattern(name)
}

// identity is the placeholder that is one name, never a list: a user who may
// choose it must not get the channels of two users by a comma.
const identity = "http.auth.user.id"

// expand puts the values of the placeholders in. A value is a list separated
// by commas, of which each entry makes one name. An empty one makes none:
// user-{id} is nothing for a client without an id, and not the channel
// `user-` of all such clients.
func (t template) expand(repl *caddy.Replacer, limit int) ([]string, error) {
	names := []string{t.parts[0]}
	for i := 1; i < len(t.parts); i += 2 {
		var longer []string
		value, _ := repl.GetString(t.parts[i])
		entries := []string{value} // a comma in it is refused, as in any name
		if t.parts[i] != identity {
			entries = strings.Split(value, ",")
		}
		for _, entry := range entries {
			if entry = strings.TrimSpace(entry); entry == "" {
				continue
			}
			if len(longer)+len(names) > limit {
				return nil, errTooMany
			}
			for _, name := range names {
				longer = append(longer, name+entry+t.parts[i+1])
			}
		}
		names = longer
	}
	return names, nil
}
