using Causeway.Fuzz;
using Causeway.Fuzz.Targets;
using SharpFuzz;

// Causeway.Fuzz TARGET            one process of AFL: inputs come from it until it has had enough
// Causeway.Fuzz TARGET FILE...    runs these inputs once, to see what a finding does
// Causeway.Fuzz --seeds TARGET FOLDER    writes the inputs to begin with
// Causeway.Fuzz --leaks TARGET FOLDER    runs all inputs of a folder again and again; fails if anything is left of them
switch (args)
{
    case ["--seeds", var name, var folder]:
        Directory.CreateDirectory(folder);
        foreach ((string seed, byte[] input) in FuzzTarget.Find(name).Seeds())
        {
            File.WriteAllBytes(Path.Combine(folder, seed), input);
        }

        return 0;

    case ["--leaks", var name, var folder]:
        return LeakCheck.Find(FuzzTarget.Find(name), Directory.GetFiles(folder)) ? 1 : 0;

    case [var name]:
        FuzzTarget target = FuzzTarget.Find(name);
        byte[] buffer = new byte[FuzzTarget.MaxInput];
        Fuzzer.OutOfProcess.Run(stream =>
        {
            int length = stream.ReadAtLeast(buffer, buffer.Length, throwOnEndOfStream: false);
            target.Run(buffer.AsSpan(0, length));
        });
        return 0;

    case [var name, .. var files]:
        foreach (string file in files)
        {
            FuzzTarget.Find(name).Run(File.ReadAllBytes(file));
        }

        return 0;

    default:
        Console.Error.WriteLine("usage: Causeway.Fuzz TARGET [FILE...] | --seeds TARGET FOLDER | --leaks TARGET FOLDER");
        return 2;
}
