using System.Runtime.CompilerServices;

// For the projects on the way of a request, which include this file. Their methods have frames of several hundred bytes, of
// results that are passed on by value; clearing them twice for each request shows in profiles. Nothing may rely on memory of
// stackalloc being zero, and what is sent to a guest must have no padding that is not cleared (WirePaddingTests).
[module: SkipLocalsInit]
