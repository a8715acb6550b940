package caddymodule

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
)

// A problem is an error as RFC 9457 has it: the body of every answer that is
// not a success.
type problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"` // tells what to mend
	// Field is the field of the envelope, the parameter or the header that is wrong, if it is one.
	Field string `json:"field,omitempty"`
	// Index is the place of the wrong event in a published array.
	Index *int `json:"index,omitempty"`
	// Line is the number of the wrong line, from 1, where lines are published.
	Line int `json:"line,omitempty"`

	header http.Header // sent along
	reason refusal     // as it is counted; empty is that of the status
}

func (p *problem) Error() string { return p.Detail }

// problemf returns a problem of a status, with a detail that tells what to mend.
func problemf(status int, format string, args ...any) *problem {
	return &problem{Status: status, Title: http.StatusText(status), Detail: fmt.Sprintf(format, args...)}
}

// in names the field that is wrong.
func (p *problem) in(field string) *problem {
	p.Field = field
	return p
}

// at names the place of the wrong event, if it is one of an array.
func (p *problem) at(index int, isArray bool) *problem {
	if isArray {
		p.Index = &index
	}
	return p
}

// because says how it is counted.
func (p *problem) because(reason refusal) *problem {
	p.reason = reason
	return p
}

// refusal returns how it is counted.
func (p *problem) refusal() refusal { return cmp.Or(p.reason, refusalOf(p.Status)) }

// with adds a header.
func (p *problem) with(name, value string) *problem {
	if p.header == nil {
		p.header = make(http.Header)
	}
	p.header.Set(name, value)
	return p
}

// asProblem returns the problem in an error, which is a server error if there
// is none.
func asProblem(err error) *problem {
	var p *problem
	if !errors.As(err, &p) {
		p = problemf(http.StatusInternalServerError, "%s", err)
	}
	return p
}

// writeProblem answers with a problem.
func writeProblem(w http.ResponseWriter, p *problem) error {
	body, err := json.Marshal(p)
	if err != nil {
		return err
	}
	maps.Copy(w.Header(), p.header)
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_, err = w.Write(append(body, '\n'))
	return err
}

// methodNotAllowed names the methods that are.
func methodNotAllowed(method, allowed string) *problem {
	return problemf(http.StatusMethodNotAllowed, "%s is not possible here; use %s", method, allowed).with("Allow", allowed)
}
