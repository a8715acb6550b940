package caddymodule

import (
	"errors"
	"fmt"
	"slices"
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

// plain reports whether it has no placeholders.
func (t template) plain() bool { return len(t.parts) == 1 }

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

func parseTemplate(source string) (t template, err error) {
	t.source = source
	if t.parts, err = splitPlaceholders(source); err != nil {
		return t, err
	}
	return t, t.checkText()
}

// splitPlaceholders returns alternately text and the names of placeholders.
func splitPlaceholders(source string) (parts []string, err error) {
	text, rest, found := strings.Cut(source, "{")
	for found {
		name, behind, closed := strings.Cut(rest, "}")
		switch {
		case !closed:
			return nil, fmt.Errorf("%q has a placeholder without an end", source)
		case name == "":
			return nil, fmt.Errorf("%q has a placeholder without a name", source)
		}
		parts = append(parts, text, name)
		text, rest, found = strings.Cut(behind, "{")
	}
	return append(parts, text), nil
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
	case t.plain(), text != "":
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

// An expansion says how templates are expanded for a request.
type expansion struct {
	repl *caddy.Replacer
	// limit is how many names one entry may stand for.
	limit int
	alone wildcard
	// user are the placeholders that make a user's name.
	user []string
}

// of returns what the templates stand for, each name once, what each of those
// with placeholders stands for, and an error for the last entry that was left out.
func (x *expansion) of(templates []template) (names []string, filled [][]string, bad error) {
	seen := make(map[string]bool)
	for _, t := range templates {
		expanded, err := x.one(t)
		if err != nil {
			bad = err
		}
		if !t.plain() {
			filled = append(filled, expanded)
		}
		for _, name := range expanded {
			if !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	return names, filled, bad
}

// one returns what a template stands for, and an error for what was left out.
func (x *expansion) one(t template) (names []string, bad error) {
	expanded, err := x.expand(t)
	if err != nil {
		return nil, fmt.Errorf("%q: %w than %d", t.source, err, x.limit)
	}
	for _, name := range expanded {
		if err := t.check(name, x.alone); err != nil {
			bad = err
		} else {
			names = append(names, name)
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

// identity is the placeholder that Caddy's authentication puts the user in.
const identity = "http.auth.user.id"

// isUser reports whether a placeholder is one name, never a list: a user who may
// choose it must not get the channels of two users by a comma.
func (x *expansion) isUser(placeholder string) bool {
	return placeholder == identity || slices.Contains(x.user, placeholder)
}

// expand puts the values of the placeholders in. A value is a list separated
// by commas, of which each entry makes one name. An empty one makes none:
// user-{id} is nothing for a client without an id, and not the channel
// `user-` of all such clients.
func (x *expansion) expand(t template) ([]string, error) {
	names := []string{t.parts[0]}
	for i := 1; i < len(t.parts); i += 2 {
		var longer []string
		value, _ := x.repl.GetString(t.parts[i])
		entries := []string{value} // a comma in it is refused, as in any name
		if !x.isUser(t.parts[i]) {
			entries = strings.Split(value, ",")
			for i := range entries {
				entries[i] = strings.TrimSpace(entries[i])
			}
		} // a user with a space behind his name is another, whose name no channel can have
		for _, entry := range entries {
			if entry == "" {
				continue
			}
			if len(longer)+len(names) > x.limit {
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
