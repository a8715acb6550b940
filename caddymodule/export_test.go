package caddymodule

var (
	ParseJSON = parseJSON
	ParseForm = parseForm
)

// ProblemStatus returns the status of the problem in an error, zero if there
// is none.
func ProblemStatus(err error) int {
	if p, ok := err.(*problem); ok { //nolint:errorlint // What the parsers return is not wrapped.
		return p.Status
	}
	return 0
}
