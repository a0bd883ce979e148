using System.Runtime.Versioning;

[assembly: SupportedOSPlatform("linux")]

// Two guests at a time: each is mostly one busy emulated processor.
[assembly: CollectionBehavior(CollectionBehavior.CollectionPerClass)]
[assembly: Xunit.v3.Parallelization(MaxThreads = 2)]
