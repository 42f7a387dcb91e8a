(component
  (component $A
    (core module $m (memory (export "memory") 1)
      (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 0)
      (func (export "f") (param i32 i32)))
    (core instance $i (instantiate $m))
    (func (export "f") (param "s" string) (canon lift (core func $i "f") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))
  (component $B
    (import "f" (func $f (param "s" string)))
    (core module $libc (memory (export "memory") 1))
    (core instance $libc (instantiate $libc))
    (core func $g (canon lower (func $f) (memory (core memory $libc "memory"))))
    (core module $m (import "" "f" (func $f (param i32 i32))) (func (export "run") i32.const 0 i32.const 4 call $f))
    (core instance $i (instantiate $m (with "" (instance (export "f" (func $g))))))
    (func (export "run") (canon lift (core func $i "run"))))
  (instance $a (instantiate $A))
  (instance $b (instantiate $B (with "f" (func $a "f"))))
  (export "run" (func $b "run")))
