// Package documents holds what the documents say of the whole repository to what
// is there. It consists of tests.
package documents
