package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/caddy-sse/caddy-sse/sse"
)

// parseJSON reads an envelope or an array of them. It is stricter than
// encoding/json, which takes a misspelt field for an absent one, the last of
// two equal ones, and any case.
func parseJSON(body []byte) (events []sse.Event, isArray bool, err error) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	start, err := decoder.Token()
	if err != nil {
		return nil, false, jsonProblem(err)
	}
	switch start {
	case json.Delim('{'):
		e, err := parseEnvelope(decoder)
		if err != nil {
			return nil, false, err
		}
		return []sse.Event{e}, false, atEnd(decoder, moreInArray)
	case json.Delim('['):
		events, err := parseArray(decoder)
		if err != nil {
			return nil, true, err
		}
		return events, true, atEnd(decoder, moreInArray)
	}
	return nil, false, problemf(http.StatusBadRequest, "the body must be a JSON object, which is one envelope, or an array of them")
}

// parseLine reads an envelope that is a line of its own.
func parseLine(text []byte) (sse.Event, error) {
	if !utf8.Valid(text) {
		return sse.Event{}, errNotUTF8("line")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	start, err := decoder.Token()
	if err != nil {
		return sse.Event{}, jsonProblem(err)
	}
	if start != json.Delim('{') {
		return sse.Event{}, problemf(http.StatusBadRequest, "a line must be a JSON object, which is one envelope")
	}
	e, err := parseEnvelope(decoder)
	if err != nil {
		return e, err
	}
	return e, atEnd(decoder, moreInLines)
}

func parseArray(decoder *json.Decoder) ([]sse.Event, error) {
	var events []sse.Event
	for decoder.More() {
		index := len(events)
		start, err := decoder.Token()
		if err == nil && start != json.Delim('{') {
			err = problemf(http.StatusBadRequest, "it must be an object, which is an envelope")
		}
		var e sse.Event
		if err == nil {
			e, err = parseEnvelope(decoder)
		}
		if err != nil {
			p := asProblem(jsonProblem(err))
			p.Index = &index
			return nil, p
		}
		events = append(events, e)
	}
	if _, err := decoder.Token(); err != nil {
		return nil, jsonProblem(err)
	}
	if len(events) == 0 {
		return nil, problemf(http.StatusBadRequest, "the array is empty: there is nothing to publish")
	}
	return events, nil
}

// parseEnvelope reads the rest of an object.
func parseEnvelope(decoder *json.Decoder) (sse.Event, error) {
	var e sse.Event
	seen, err := eachField(decoder, func(name string, value json.RawMessage) error { return setField(&e, name, value) })
	if err == nil && seen["channel"] && seen["channels"] {
		err = errBothChannels()
	}
	return e, err
}

// eachField reads the rest of an object, field by field, each of which may be
// there once.
func eachField(decoder *json.Decoder, take func(name string, value json.RawMessage) error) (seen map[string]bool, err error) {
	seen = make(map[string]bool)
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return seen, jsonProblem(err)
		}
		name := token.(string) // the decoder refuses other keys
		if seen[name] {
			return seen, problemf(http.StatusBadRequest, "%.64q is given twice", name).in(name)
		}
		seen[name] = true
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return seen, jsonProblem(err)
		}
		if err := take(name, value); err != nil {
			return seen, err
		}
	}
	if _, err := decoder.Token(); err != nil {
		return seen, jsonProblem(err)
	}
	return seen, nil
}

func setField(e *sse.Event, name string, value json.RawMessage) error {
	var err error
	switch name {
	case "channel":
		e.Channels = make([]string, 1)
		err = unmarshal(value, &e.Channels[0], name, "a string")
	case "channels":
		err = unmarshal(value, &e.Channels, name, "an array of strings")
	case "data":
		e.Data, err = dataOf(value)
	case "event":
		err = unmarshal(value, &e.Name, name, "a string")
	case "retry":
		e.Retry, err = parseRetry(string(value))
	case "id":
		if err = unmarshal(value, &e.ID, name, "a string"); err == nil {
			err = checkID(e.ID)
		}
	case "end":
		e.End, err = parseEnd(string(value))
	default:
		return unknownField(name)
	}
	return err
}

// dataOf returns a string verbatim and any other value in its compact form.
func dataOf(value json.RawMessage) (string, error) {
	var text string
	if value[0] == '"' {
		return text, unmarshal(value, &text, "data", "a string")
	}
	var compact bytes.Buffer
	err := json.Compact(&compact, value)
	return compact.String(), err
}

// unmarshal reads a value of which encoding/json would make the best: null
// leaves things as they are, and half of a surrogate pair becomes U+FFFD.
func unmarshal(value json.RawMessage, into any, field, kind string) error {
	if string(value) == "null" || json.Unmarshal(value, into) != nil {
		return problemf(http.StatusBadRequest, "%s must be %s", field, kind).in(field)
	}
	if hasLoneSurrogate(value) {
		return problemf(http.StatusBadRequest, "%s has half of a surrogate pair in it, which is no character", field).in(field)
	}
	return nil
}

// hasLoneSurrogate reports whether a valid JSON value escapes half of a
// surrogate pair without the other half.
func hasLoneSurrogate(value []byte) bool {
	for i := 0; i+6 <= len(value); i++ {
		if value[i] != '\\' {
			continue
		}
		if value[i+1] != 'u' {
			i++ // an escaped character, which may be a backslash
			continue
		}
		unit := hexUnit(value[i:])
		i += 5
		switch {
		case utf16.IsSurrogate(unit) && utf16.DecodeRune(unit, hexUnit(value[i+1:])) == utf8.RuneError:
			return true
		case utf16.IsSurrogate(unit):
			i += 6
		}
	}
	return false
}

// hexUnit reads an escape such as \u00e9, or returns zero.
func hexUnit(text []byte) rune {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0
	}
	n, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	if err != nil {
		return 0
	}
	return rune(n)
}

// Where several events go, for those who put them elsewhere.
const (
	moreInArray = "to publish several events, put them into an array"
	moreInLines = "to publish several events, put each on a line of its own"
)

func atEnd(decoder *json.Decoder, more string) error {
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return problemf(http.StatusBadRequest, "something follows the end of the JSON value at byte %d; %s", decoder.InputOffset(), more)
	}
	return nil
}

// jsonProblem says where a body stops being JSON.
func jsonProblem(err error) error {
	var p *problem
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return problemf(http.StatusBadRequest, "the JSON ends before it is complete")
	case errors.As(err, &syntax):
		return problemf(http.StatusBadRequest, "not valid JSON at byte %s: %s", strconv.FormatInt(syntax.Offset, 10), syntax)
	}
	return problemf(http.StatusBadRequest, "not valid JSON: %s", err)
}
