package main

import "fmt"

// ailing says that a doctor found something wrong.
type ailing struct{ wrong, of int }

func (a *ailing) Error() string {
	return fmt.Sprintf("%d of %d checks found something wrong", a.wrong, a.of)
}
