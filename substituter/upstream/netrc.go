package upstream

import (
	"errors"
	"fmt"
	"strings"
)

// The files that Nix's netrc-file names, as curl reads them. The parsers that
// could be imported panic at a file that ends early or run gpg, and know no
// quotes.

// netrcLogin finds the login for a host in the text of a netrc file: that of
// the first machine of this name, else the default. Errors do not repeat the
// text, which is secret.
func netrcLogin(text, host string) (login, password string, err error) {
	s := &netrcScanner{rest: text, line: 1}
	var found, current bool // an entry was found; the words are about it
	for {
		word := s.keyword()
		switch word {
		case "":
			if !found {
				return "", "", fmt.Errorf("has no entry for %s", host)
			}
			return login, password, nil
		case "machine", "default":
			name := host
			if word == "machine" {
				if name, err = s.value(); err != nil {
					return "", "", err
				}
			}
			if current = !found && strings.EqualFold(name, host); current {
				found = true
			}
		case "login", "password", "account":
			value, err := s.value()
			if err != nil {
				return "", "", err
			}
			switch {
			case current && word == "login":
				login = value
			case current && word == "password":
				password = value
			}
		case "macdef":
			s.skipMacro()
		}
	}
}

// netrcScanner goes through the words of a netrc file.
type netrcScanner struct {
	rest string
	line int
}

const netrcBlanks = " \t\r\n"

func (s *netrcScanner) advance(n int) (passed string) {
	passed, s.rest = s.rest[:n], s.rest[n:]
	s.line += strings.Count(passed, "\n")
	return passed
}

func (s *netrcScanner) skipBlanks() {
	s.advance(len(s.rest) - len(strings.TrimLeft(s.rest, netrcBlanks)))
}

// word returns what comes before the next blank.
func (s *netrcScanner) word() string {
	end := strings.IndexAny(s.rest, netrcBlanks)
	if end < 0 {
		end = len(s.rest)
	}
	return s.advance(end)
}

// keyword returns the next word that is not part of a comment, or "" at the
// end.
func (s *netrcScanner) keyword() string {
	for s.skipBlanks(); strings.HasPrefix(s.rest, "#"); s.skipBlanks() {
		line, _, _ := strings.Cut(s.rest, "\n")
		s.advance(len(line))
	}
	return s.word()
}

// value returns the word that follows a keyword. It may stand in quotes.
func (s *netrcScanner) value() (string, error) {
	s.skipBlanks()
	if s.rest == "" {
		return "", fmt.Errorf("line %d: the file ends where a value should follow", s.line)
	}
	if s.rest[0] != '"' {
		return s.word(), nil
	}
	var b strings.Builder
	for i := 1; i < len(s.rest); i++ {
		switch c := s.rest[i]; c {
		case '"':
			s.advance(i + 1)
			return b.String(), nil
		case '\\':
			if i++; i < len(s.rest) {
				b.WriteByte(unescape(s.rest[i]))
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", errors.New("a quoted value does not end")
}

func unescape(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}

// skipMacro skips a macro definition, which ends with an empty line.
func (s *netrcScanner) skipMacro() {
	end := strings.Index(s.rest, "\n\n")
	if end < 0 {
		end = len(s.rest)
	}
	s.advance(end)
}
