using Causeway.Benchmarks;

if (args is not ["dax", ..] || args.Length > 3)
{
    Console.Error.WriteLine("usage: dotnet run -c Release --project benchmarks/Causeway.Benchmarks -- dax [DIRECTORY [MEGABYTES]]");
    return 2;
}

string directory = args.Length > 1 ? args[1] : Path.GetTempPath();
int megabytes = args.Length > 2 ? int.Parse(args[2], System.Globalization.CultureInfo.InvariantCulture) : 128;
await using DaxBenchmark benchmark = DaxBenchmark.Start(directory, megabytes);
await benchmark.RunAsync();
return 0;
